"""What is shown of an evaluation: tables, curves, pictures, pages."""
