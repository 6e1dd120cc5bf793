"""What runs a network: onnxruntime on CPU, torch and MONAI on CUDA."""
