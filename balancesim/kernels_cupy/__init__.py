"""The kernels on a CUDA card, through CuPy: the same function names, the same draws and loads.

Nothing here is imported before a caller asks for the backend "cupy".
"""
