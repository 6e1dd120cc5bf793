"""Classes that keep a port's promises in memory; they pass the contract tests of the adapters."""
