"""Grown DB-KSVD: atoms that join from general to special."""
