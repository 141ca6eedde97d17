package sandbox

import (
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// FuzzResolvConf: a request that is accepted writes the lines that it asks for
// and no other.
func FuzzResolvConf(f *testing.F) {
	f.Add("8.8.8.8", "a.b", "ndots:5")
	f.Add("fe80::1%eth0", "x\nnameserver 1.1.1.1", "\x00")
	f.Add("fe80::1%e\nnameserver 1.1.1.1", "a", "b\r")
	f.Fuzz(func(t *testing.T, server, search, option string) {
		dns := &runtimeapi.DNSConfig{Servers: []string{server}, Searches: []string{search}, Options: []string{option}}
		if validateDNS(dns) != nil {
			return
		}
		text, err := resolvConf(dns)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		if len(lines) != 3 || len(strings.Fields(lines[0])) != 2 || len(strings.Fields(lines[1])) != 2 || len(strings.Fields(lines[2])) != 2 {
			t.Errorf("%q", text)
		}
	})
}
