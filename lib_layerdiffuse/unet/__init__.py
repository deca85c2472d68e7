"""Putting a method on a UNet of any host: kinds of methods, key tables, condition images."""
