"""What the project needs beside its code: programs for maintainers."""
