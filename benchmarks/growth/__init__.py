"""What grows with what: each curve is a module with its points, measured in processes of their own."""
