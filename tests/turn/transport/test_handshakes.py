"""What TLS and DTLS agree on: RFC 8489 §6.2.3, and BCP 195 (RFC 9325) behind it."""

import asyncio
import ssl

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL

from tests.certificates import certificate
from tests.turn.live import port_of, relay
from tests.turn.secure import DtlsClient
from turn.codec import registry
from turn.codec.registry import Method

MANDATORY = "ECDHE-RSA-AES128-GCM-SHA256"
WITHOUT_SECRECY = "AES128-GCM-SHA256"
"""The client sends the secret under the certificate's key: whoever gets that reads all."""
DTLS_1_0 = 0xFEFF
REFUSED = (ssl.SSLError, ConnectionError)


@pytest.fixture(scope="module", name="pem")
def pem_fixture(tmp_path_factory):
    """A certificate with an RSA key, as the mandatory suites need it."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem, key = certificate(tmp_path_factory.mktemp("pem"), "relay", key=private)
    return {"tls_certificate": str(pem), "tls_key": str(key)}


class TestTls:
    async def shake(self, service, ciphers, version=ssl.TLSVersion.TLSv1_2):
        """The connection that a client with these suites gets."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = version
        context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(service, "tls"), ssl=context)
        found = writer.get_extra_info("ssl_object")
        writer.transport.abort()
        return found

    async def test_the_mandatory_suite_without_compression(self, pem):
        async with relay(listen_tls=["127.0.0.1:0"], **pem) as service:
            found = await self.shake(service, MANDATORY)
            assert found.cipher()[0] == MANDATORY
            assert found.compression() is None

    async def test_forward_secrecy_is_had_even_by_who_would_rather_not(self, pem):
        async with relay(listen_tls=["127.0.0.1:0"], **pem) as service:
            found = await self.shake(service, f"{WITHOUT_SECRECY}:{MANDATORY}")
            assert found.cipher()[0] == MANDATORY
            with pytest.raises(REFUSED):
                await self.shake(service, WITHOUT_SECRECY)

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
    @pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
    async def test_no_version_before_1_2(self, pem, version):
        async with relay(listen_tls=["127.0.0.1:0"], **pem) as service:
            with pytest.raises(REFUSED):
                await self.shake(service, "ALL", version)

    async def test_weak_suites_are_not_to_be_had(self, pem):
        async with relay(listen_tls=["127.0.0.1:0"], **pem) as service:
            with pytest.raises(REFUSED):
                await self.shake(service, "NULL:RC4:3DES:DES:EXPORT:aNULL:AES128-SHA")


class TestDtls:
    async def shake(self, service, ciphers, version=None):
        """The connection that a client with these suites gets."""
        context = SSL.Context(SSL.DTLS_CLIENT_METHOD)
        context.set_cipher_list(f"{ciphers}:@SECLEVEL=0".encode())
        if version:
            context.set_min_proto_version(version)
            context.set_max_proto_version(version)
        client = await DtlsClient().connect(port_of(service, "dtls"), context=context)
        try:
            await client.shake()
            assert (await client.request(Method.BINDING)).has(registry.XOR_MAPPED_ADDRESS)
            return client.connection
        finally:
            client.close()

    async def test_the_mandatory_suite(self, pem):
        async with relay(listen_dtls=["127.0.0.1:0"], **pem) as service:
            assert (await self.shake(service, MANDATORY)).get_cipher_name() == MANDATORY

    async def test_forward_secrecy_is_had_even_by_who_would_rather_not(self, pem):
        async with relay(listen_dtls=["127.0.0.1:0"], **pem) as service:
            found = await self.shake(service, f"{WITHOUT_SECRECY}:{MANDATORY}")
            assert found.get_cipher_name() == MANDATORY
            with pytest.raises(SSL.Error):
                await self.shake(service, WITHOUT_SECRECY)

    async def test_no_version_before_1_2(self, pem):
        async with relay(listen_dtls=["127.0.0.1:0"], **pem) as service:
            with pytest.raises(SSL.Error):
                await self.shake(service, "ALL", DTLS_1_0)
