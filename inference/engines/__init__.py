"""What runs the network: onnxruntime on the CPU, torch and MONAI on CUDA with the CPU behind it."""
