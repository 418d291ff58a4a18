"""What `asb doctor` looks at: each check is a function from a look to rows."""
