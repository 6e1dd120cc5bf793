# make demo   the whole path on this machine, ending with reports
# make test   everything that CI runs
# make help   the rest

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH ?= yes
FUZZ_SECONDS ?= 120
EXAMS ?= 30
PROFILE ?= all
FACTOR ?= 0.1
SPEED ?= 1
DAY ?= 10000
STEADY ?= 50000
SEED ?= 1

.PHONY: help demo test bench load steady simulate regions viewer pixelmed soak kill powercut fuzz lint lock sbom audit peers clean

help:
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: $(VENV)/node.installed ## the whole path on this machine: FILES="a.dcm b.dcm" for your own radiographs
	@$(BIN)/dicom-node demo $(FILES)

test: $(VENV)/dev.installed peers lint ## lint, types, import contracts and all tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

bench: $(VENV)/dev.installed peers ## speed side by side, from decoding to the report in the PACS; writes build/benchmarks/
	$(BIN)/python -m pytest tests/benchmarks -m benchmark -s; result=$$?; \
		$(BIN)/python -m tests.benchmarks.results; exit $$result

regions: $(VENV)/dev.installed ## a centre with a replica and four regions on this machine, EXAMS=30 from each; cut off in turn, then the sums
	@bash .ci/peers regions
	@$(BIN)/python -m tests.regions --exams $(EXAMS)

viewer: $(VENV)/dev.installed ## opens reports in OHIF in headless Chromium; renews docs/pictures/ohif-*.png
	@bash .ci/peers viewer
	$(PIP) install -q selenium==4.46.0
	mkdir -p build/ohif
	cd build/ohif && npm pack --silent @ohif/app@3.12.10 && tar xzf ohif-app-3.12.10.tgz
	$(BIN)/python -m pytest tests/viewer -m viewer

pixelmed: $(VENV)/dev.installed ## PixelMed's validator on every kind of Structured Report
	@bash .ci/peers pixelmed
	$(BIN)/python -m pytest tests/integration/test_pixelmed.py -m pixelmed

load: $(VENV)/dev.installed peers ## loads that people ask for: PROFILE=sustained FACTOR=0.1 SPEED=1; writes build/load/
	$(BIN)/python -m tests.load --profile $(PROFILE) --factor $(FACTOR) --speed $(SPEED)

steady: $(VENV)/dev.installed peers ## whether rate, P95 and memory stay as they are: STEADY=50000 exams, about an hour; writes build/load/
	$(BIN)/python -m tests.load.steady --exams $(STEADY)

simulate: $(VENV)/dev.installed peers ## a hospital day in 20 minutes: DAY=10000 exams from 20 stations, with kills; writes build/simulate.png
	$(BIN)/python -m tests.load.simulate --exams $(DAY) --seed $(SEED)

soak: $(VENV)/dev.installed peers ## ten minutes of good and bad peers: memory, threads, files must not grow; writes build/soak.png
	$(BIN)/python -m pytest tests/faults/test_soak.py -m soak -s

kill: $(VENV)/dev.installed peers ## kill -9 for every process in every stage, 200 times; writes build/kill.json
	$(BIN)/python -m pytest tests/faults/test_kill_everywhere.py -m kill -s

powercut: $(VENV)/dev.installed peers ## thousands of power cuts on a file system that loses what was not synced; needs root and FUSE
	$(BIN)/python -m pytest tests/faults/test_power_cut.py -m powercut --durations=0

fuzz: $(VENV)/dev.installed ## atheris on all that reads bytes of strangers, FUZZ_SECONDS=120 for each; findings go to tests/faults/seeds/
	$(PIP) install -q atheris==3.0.0
	@for target in pdus messages identity header codestream pixels; do \
		echo "$$target: $(FUZZ_SECONDS) seconds"; \
		$(BIN)/python -W ignore -m tests.faults.fuzz $$target $(FUZZ_SECONDS) || exit 1; \
	done

lint: $(VENV)/dev.installed ## ruff, mypy --strict and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@if $(BIN)/python -c "import torch" 2>/dev/null; then $(BIN)/mypy; \
		else echo "types are not checked: that needs PyTorch"; fi
	$(BIN)/lint-imports

peers: ## DCMTK, Orthanc, PostgreSQL, Prometheus and rsyslog from Debian, where they are missing and root permits
	@bash .ci/peers

lock: ## renew the lock files from pyproject.toml
	$(BIN)/pip-compile -q --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url \
		--no-emit-find-links --extra build -o requirements.lock pyproject.toml
	$(BIN)/pip-compile -q --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url \
		--no-emit-find-links --extra build --extra dev -c requirements.lock -o requirements-dev.lock \
		pyproject.toml

sbom: build/supply/installed ## what the node is made of, as CycloneDX: build/sbom.json
	build/supply/bin/cyclonedx-py requirements --pyproject pyproject.toml --of JSON -o build/sbom.json requirements.lock

audit: build/supply/installed ## known vulnerabilities of the locked dependencies; needs PyPI's own service
	build/supply/bin/pip-audit --strict --disable-pip --require-hashes -r requirements.lock

build/supply/installed:
	$(PYTHON) -m venv build/supply
	build/supply/bin/pip install -q pip-audit==2.10.1 cyclonedx-bom==7.5.0
	@touch $@

clean: ## remove the environment and what the demo left
	rm -rf $(VENV) demo build *.egg-info

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/node.installed: requirements.lock pyproject.toml | $(VENV)/bin/python
	$(PIP) install -q --require-hashes -r requirements.lock
	$(PIP) install -q --no-deps --no-build-isolation -e .
	@touch $@

# PyTorch differs by platform and device, so pip chooses its build: requirements-torch.txt has no hashes.
$(VENV)/dev.installed: requirements-dev.lock requirements-torch.txt $(VENV)/node.installed
	$(PIP) install -q --require-hashes -r requirements-dev.lock
	@if [ "$(TORCH)" = yes ]; then $(PIP) install -q -r requirements-torch.txt \
		|| echo "PyTorch could not be installed: tests that need it will be skipped"; fi
	@touch $@
