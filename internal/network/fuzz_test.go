package network

import (
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// FuzzResult: what a plugin prints gives the pod an address, or is a failure.
func FuzzResult(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/n"}],"ips":[{"address":"10.0.0.2/24","interface":0}]}`))
	f.Add([]byte(`{"cniVersion":"1.0.0","ips":[null,{"address":"fd00::2/64"},{"interface":-1,"address":"10.0.0.1/8"}]}`))
	f.Add([]byte(`{"cniVersion":"1.1.0","interfaces":[null],"ips":[{"interface":0}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		given, err := types100.NewResult(body)
		if err != nil {
			return
		}
		r := record{IfName: IfName}
		if err := r.setResult(given); err != nil {
			return
		}
		for _, ip := range r.IPs {
			if !ip.IsValid() {
				t.Errorf("%q: an address that is none", body)
			}
		}
		if !r.attached() {
			t.Errorf("%q: not attached", body)
		}
	})
}
