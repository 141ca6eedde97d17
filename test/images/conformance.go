package images

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"time"

	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
)

// agnhost is where Make builds the program, beside the directory that the cache
// is in.
func agnhost(cache string) string {
	return filepath.Join(filepath.Dir(filepath.Dir(cache)), "bin", "agnhost")
}

// pauseProgram waits for a signal to end.
const pauseProgram = `#include <signal.h>
#include <unistd.h>
static void end(int sig) { _exit(0); }
int main(void) { signal(SIGTERM, end); signal(SIGINT, end); for (;;) pause(); }
`

// conformanceImages builds what the specs of Kubernetes v1.37 for a node run, all
// but those that measure its performance or load modules into its kernel.
// program is a busybox with every applet.
func conformanceImages(ctx context.Context, in inputs, program []byte) ([]image, error) {
	box, web, err := shellAndWeb(ctx, in, program)
	if err != nil {
		return nil, err
	}
	host, err := agnhostTree(ctx, in)
	if err != nil {
		return nil, err
	}
	nnp, err := programmed(ctx, "usr/local/bin/nnp", 0o4755, effectiveUID)
	if err != nil {
		return nil, err
	}
	pause, err := programmed(ctx, "pause", 0o755, pauseProgram)
	if err != nil {
		return nil, err
	}
	older := NewTree() // an image with it differs from the one without
	older.File("older", 0o644, nil)
	nonroot := shell(box, nil, e2e+"nonroot:1.5")
	nonroot.config.User = "1234"
	unprivileged := shell(box, nnp, e2e+"nonewprivs:1.4")
	unprivileged.config.Cmd = []string{"nnp"}
	return []image{
		shell(box, nil, e2e+"busybox:1.37.0-2"),
		shell(box, older, e2e+"busybox:1.36.1-1"),
		nginxImage([]*Tree{box, web}, e2e+"nginx:1.28.0-2"),
		nginxImage([]*Tree{box, web, older}, e2e+"nginx:1.27.0-2"),
		agnhostImage([]*Tree{box, host}, e2e+"agnhost:2.66.1"),
		agnhostImage([]*Tree{box, host, older}, e2e+"agnhost:2.55"),
		{
			names:  []string{"registry.k8s.io/pause:3.10.2"},
			layers: []*Tree{box, pause},
			config: imgspec.ImageConfig{Env: []string{searchPath}, Entrypoint: []string{"/pause"}},
		},
		shell(box, host, e2e+"glibc-dns-testing:2.1.1"),
		shell(box, nil, e2e+"ipc-utils:1.4"),
		unprivileged,
		nonroot,
	}, nil
}

func agnhostImage(layers []*Tree, name string) image {
	return image{
		names:  []string{name},
		layers: layers,
		config: imgspec.ImageConfig{Env: []string{searchPath}, Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"}},
	}
}

// agnhostTree holds Kubernetes' program for tests, and what its image has besides
// that specs for a node use.
func agnhostTree(ctx context.Context, in inputs) (*Tree, error) {
	t, err := programTree(ctx, in.tools, "usr/bin/curl", "bin/bash", "usr/bin/bash")
	if err != nil {
		return nil, err
	}
	program, err := os.ReadFile(in.agnhost)
	if err != nil {
		return nil, err
	}
	t.File("agnhost", 0o755, program)
	t.Symlink("agnhost-2", "agnhost")
	if _, ok := t.entries["usr/bin/bash"]; ok {
		t.Symlink("bin/bash", "/usr/bin/bash")
	}
	t.Dir("uploads", 0o755)
	certificate, key, err := newCertificate()
	if err != nil {
		return nil, err
	}
	t.File("localhost.crt", 0o644, certificate)
	t.File("localhost.key", 0o644, key)
	return t, nil
}

// newCertificate makes a server's certificate, which nobody checks.
func newCertificate() (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"localhost"},
		NotAfter:     time.Date(2084, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return certificate, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}
