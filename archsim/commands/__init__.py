"""What the `archsim` commands do; cli/ names them."""
