package image

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t *testing.T, name string) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return authority{cert, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
}

// sign returns a certificate of 127.0.0.1, for servers and clients, and its key.
func (a authority) sign(t *testing.T) (cert, key string) {
	t.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "127.0.0.1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &secret.PublicKey, a.key)
	must(t, err)
	secretDER, err := x509.MarshalPKCS8PrivateKey(secret)
	must(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secretDER}))
}

// newTLSFake is a fake registry that demands a certificate of its clients.
func newTLSFake(t *testing.T, own, clients authority) *fakeRegistry {
	t.Helper()
	f := newFake(t)
	cert, key := own.sign(t)
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(clients.cert)
	srv := httptest.NewUnstartedServer(f)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	f.host = srv.Listener.Addr().String()
	return f
}

// TestClientCertificates: a registry with a CA of its own, which wants its
// clients to have a certificate, by what certs.d has for it.
func TestClientCertificates(t *testing.T) {
	server, clients, stranger := newAuthority(t, "server"), newAuthority(t, "clients"), newAuthority(t, "stranger")
	reg := newTLSFake(t, server, clients)
	reg.put("app", "1", buildImage(t, nil, 100, 200))
	cert, key := clients.sign(t)
	wrongCert, wrongKey := stranger.sign(t)
	for _, c := range []struct {
		name  string
		files map[string]string
		want  errkind.Kind // Other: pulled
		says  string
	}{
		{"all of it", map[string]string{"ca.crt": server.pem, "client.cert": cert, "client.key": key}, errkind.Other, ""},
		{"nothing", nil, errkind.Unavailable, "certificate signed by unknown authority"},
		{"no CA", map[string]string{"client.cert": cert, "client.key": key}, errkind.Unavailable, "certificate signed by unknown authority"},
		{"another CA", map[string]string{"ca.crt": stranger.pem, "client.cert": cert, "client.key": key}, errkind.Unavailable, "certificate signed by unknown authority"},
		{"no certificate", map[string]string{"ca.crt": server.pem}, errkind.Denied, "certificate required"},
		{"a certificate of somebody else", map[string]string{"ca.crt": server.pem, "client.cert": wrongCert, "client.key": wrongKey}, errkind.Denied, "certificate"},
		{"no key", map[string]string{"ca.crt": server.pem, "client.cert": cert}, errkind.Precondition, "client.key"},
		{"a broken key", map[string]string{"ca.crt": server.pem, "client.cert": cert, "client.key": "x"}, errkind.Precondition, "PEM"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newService(t, func(o *Options) { o.RetryDelay = time.Minute }) // no retry helps
			for name, body := range c.files {
				write(t, filepath.Join(s.dir, "certs.d", reg.host), name, body)
			}
			start := time.Now()
			_, err := s.Pull(t.Context(), PullRequest{Image: reg.host + "/app:1"})
			if errkind.Of(err) != c.want || (err == nil) != (c.want == errkind.Other) || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v (kind %d)", err, errkind.Of(err))
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("took %s", took)
			}
			must(t, os.RemoveAll(filepath.Join(s.dir, "certs.d")))
		})
	}
}
