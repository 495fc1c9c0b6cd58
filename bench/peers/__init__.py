"""The servers that fastspawn is compared with."""
