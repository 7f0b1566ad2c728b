"""The loss over all classes on a GPU: kernels in Triton around cuBLAS products."""
