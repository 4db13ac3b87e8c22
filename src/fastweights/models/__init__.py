"""Networks: blocks around layers, and the models built from them."""
