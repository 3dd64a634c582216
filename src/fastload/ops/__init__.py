"""Tools for whoever runs fastload: what they say is for people and for machines, and loads nothing for anybody."""
