package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/libcni"

	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/statefile"
)

const recordVersion = 1

// record is the journal's entry for one pod. It is written before the first
// plugin is run for the pod and removed when DEL has succeeded, and holds all
// that DEL needs, whatever becomes of the configuration meanwhile.
type record struct {
	Pod          id.Pod                     `json:"pod"`
	Network      string                     `json:"network"`
	Conf         string                     `json:"conf"` // the network configuration list as it was
	IfName       string                     `json:"ifName"`
	NetNS        string                     `json:"netns"`
	Args         [][2]string                `json:"args,omitempty"`
	Capabilities map[string]json.RawMessage `json:"capabilities,omitempty"`

	// What ADD gave. Without IPs the record is an intent: plugins may have run.
	IPs []netip.Addr    `json:"ips,omitempty"`
	Raw json.RawMessage `json:"result,omitempty"`

	// A DEL has failed: the pod is to be detached, whoever else thinks it lives.
	Doomed bool `json:"doomed,omitempty"`
}

// attached reports whether the pod has its network.
func (r *record) attached() bool { return r != nil && len(r.IPs) > 0 && !r.Doomed }

func (r *record) result() Result { return Result{IPs: r.IPs, Raw: r.Raw} }

// runtimeConf is the record in libcni's terms.
func (r *record) runtimeConf() *libcni.RuntimeConf {
	capabilities := make(map[string]any, len(r.Capabilities))
	for name, v := range r.Capabilities {
		capabilities[name] = v
	}
	return &libcni.RuntimeConf{
		ContainerID:    string(r.Pod),
		NetNS:          r.NetNS,
		IfName:         r.IfName,
		Args:           r.Args,
		CapabilityArgs: capabilities,
	}
}

// newRecord is the intent to attach pod to n.
func newRecord(n *configured, pod Pod) (*record, error) {
	capabilities, err := capabilities(pod)
	if err != nil {
		return nil, err
	}
	return &record{
		Pod:     pod.ID,
		Network: n.list.Name,
		Conf:    n.conf,
		IfName:  IfName,
		NetNS:   pod.NetNS,
		Args: [][2]string{
			{"IgnoreUnknown", "1"},
			{"K8S_POD_NAMESPACE", pod.Namespace},
			{"K8S_POD_NAME", pod.Name},
			{"K8S_POD_INFRA_CONTAINER_ID", string(pod.ID)},
			{"K8S_POD_UID", pod.UID},
		},
		Capabilities: capabilities,
	}, nil
}

// journal keeps the records, one file per pod, and beside each a lock file
// (see hold) and perhaps namespaces (see doom, needsStandIn).
type journal struct {
	dir     string // of records and locks
	damaged string // where unreadable records are put
}

func newJournal(stateDir string) (journal, error) {
	j := journal{journalDir(stateDir), filepath.Join(stateDir, "damaged")}
	return j, os.MkdirAll(j.dir, 0o700)
}

func journalDir(stateDir string) string { return filepath.Join(stateDir, "attachments") }

const recordExt = ".json"

func (j journal) path(pod id.Pod) string { return filepath.Join(j.dir, string(pod)+recordExt) }
func (j journal) lock(pod id.Pod) string { return filepath.Join(j.dir, string(pod)+".lock") }

// netns is where the namespace of a doomed attachment is kept.
func (j journal) netns(pod id.Pod) string { return filepath.Join(j.dir, string(pod)+".netns") }

// standIn is where DEL is given a namespace instead of the pod's own.
func (j journal) standIn(pod id.Pod) string { return filepath.Join(j.dir, string(pod)+".standin") }

func (j journal) write(r *record) error {
	if err := statefile.Write(j.path(r.Pod), recordVersion, r); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// sync puts the pod's record on stable storage. It takes milliseconds, so it
// is done beside the plugins.
func (j journal) sync(pod id.Pod) error {
	var errs []error
	for _, path := range []string{j.path(pod), j.dir} {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		errs = append(errs, f.Sync(), f.Close())
	}
	return errors.Join(errs...)
}

func (j journal) remove(pod id.Pod) error {
	err := errors.Join(statefile.Remove(j.path(pod)), RemoveNetNS(j.netns(pod)), RemoveNetNS(j.standIn(pod)))
	if lockErr := os.Remove(j.lock(pod)); !errors.Is(lockErr, fs.ErrNotExist) {
		err = errors.Join(err, lockErr)
	}
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// load reads every record. Those that can't be read are put aside and their
// new places returned.
func (j journal) load() (records []*record, damaged []string, err error) {
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("journal: %w", err)
	}
	for _, e := range entries {
		pod, ok := strings.CutSuffix(e.Name(), recordExt)
		if !ok || !id.Valid(pod) {
			continue
		}
		var r record
		err := statefile.Read(j.path(id.Pod(pod)), recordVersion, &r)
		if err == nil && (r.Pod != id.Pod(pod) || r.IfName == "" || r.Conf == "") {
			err = statefile.ErrDamaged
		}
		if err == nil {
			records = append(records, &r)
			continue
		}
		aside, err := j.putAside(id.Pod(pod))
		if err != nil {
			return nil, nil, err
		}
		damaged = append(damaged, aside)
	}
	return records, damaged, nil
}

func (j journal) putAside(pod id.Pod) (string, error) {
	if err := os.MkdirAll(j.damaged, 0o700); err != nil {
		return "", fmt.Errorf("journal: %w", err)
	}
	aside := filepath.Join(j.damaged, string(pod)+recordExt)
	if err := os.Rename(j.path(pod), aside); err != nil {
		return "", fmt.Errorf("journal: %w", err)
	}
	return aside, nil
}

// sweep removes what writes and removals that a crash cut short left behind:
// the locks and temporary files of pods without a record.
func (j journal) sweep(known func(id.Pod) bool) error {
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	var errs []error
	for _, e := range entries {
		name, _, _ := strings.Cut(e.Name(), ".")
		if known(id.Pod(name)) {
			continue
		}
		errs = append(errs, RemoveNetNS(filepath.Join(j.dir, e.Name()))) // mount or plain file alike
	}
	return errors.Join(errs...)
}

// RecordCount tells how many attachments are journalled below a state directory.
func RecordCount(stateDir string) int {
	found, err := filepath.Glob(filepath.Join(journalDir(stateDir), "*"+recordExt))
	if err != nil {
		return 0
	}
	return len(found)
}
