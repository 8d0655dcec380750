"""The gallery: index pictures once, find people in it by description or by picture."""
