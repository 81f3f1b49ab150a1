"""Takes orders on its homepage and runs the saga that makes each of them."""
