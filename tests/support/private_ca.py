"""A certificate authority that no client trusts by default."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class PrivateCA:
    """An authority and a server's certificate by it, for 127.0.0.1 and localhost.

    :param bundle: the file for ``REQUESTS_CA_BUNDLE``.
    :param server: the context of a TLS server on this machine.
    """

    bundle: Path
    server: ssl.SSLContext


def private_ca(folder: Path) -> PrivateCA:
    """Make an authority; its certificate is written into the folder."""
    authority = trustme.CA()
    bundle = folder / "private-ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(server)
    return PrivateCA(bundle, server)
