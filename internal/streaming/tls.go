package streaming

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"
)

// TLSFiles returns a configuration that serves with the certificate and key of
// two PEM files. They are read again when one of them has changed; while the
// new ones can't be used, the old ones stand.
func TLSFiles(cert, key string) (*tls.Config, error) {
	f := &tlsFiles{cert: cert, key: key}
	if _, err := f.get(nil); err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: f.get}, nil
}

type tlsFiles struct {
	cert, key string

	mu     sync.Mutex // guards the rest
	loaded *tls.Certificate
	read   [2]time.Time // the files' times of change then
}

func (f *tlsFiles) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	changed, err := f.changes()
	if err == nil && f.loaded != nil && changed == f.read {
		return f.loaded, nil
	}
	var pair tls.Certificate
	if err == nil {
		pair, err = tls.LoadX509KeyPair(f.cert, f.key)
	}
	switch {
	case err == nil:
		f.loaded, f.read = &pair, changed
	case f.loaded == nil:
		return nil, fmt.Errorf("streaming: certificate %s: %w", f.cert, err)
	}
	return f.loaded, nil
}

func (f *tlsFiles) changes() (times [2]time.Time, err error) {
	for i, name := range []string{f.cert, f.key} {
		info, err := os.Stat(name)
		if err != nil {
			return times, err
		}
		times[i] = info.ModTime()
	}
	return times, nil
}
