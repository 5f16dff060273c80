"""
Outgoing connections: the one package that opens them to hosts which a customer, or a provider, names.

Every socket is made for one address, which is checked just before it is connected to. HTTP follows no redirect. Proxies
and certificate authorities are those of the settings, for all clients alike.
"""
