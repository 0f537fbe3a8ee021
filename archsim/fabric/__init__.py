"""Links between devices, and the collectives that run over them."""
