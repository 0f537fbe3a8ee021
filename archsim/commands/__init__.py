"""What the `archsim` commands do; cli.py names them."""
