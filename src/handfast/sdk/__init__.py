"""What a Python application imports: TLS contexts that rotate, and a front that shows the client's certificate."""
