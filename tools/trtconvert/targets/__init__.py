"""What engines are built for."""
