package main

import (
	"errors"
	"flag"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"
)

// plan says what is measured and how often.
type plan struct {
	runtime  string // name or path of the OCI runtime
	servers  []who
	jsonFile string
	gantryd  string // path of the daemon; "" = bin/gantryd of the source tree

	pods    int // that exist while something is measured "with N pods"
	rounds  int // of one pod up and down, with no other pod
	execs   int
	burst   int // pods of one burst
	bursts  int
	workers int // calls in flight in a burst
	extra   int // rounds with N pods
	lists   int
	soak    int            // commands after which the daemon's memory is looked at
	only    *regexp.Regexp // names the steps to do; the preparation always is

	idle   time.Duration // how long a daemon is left alone before its memory is read
	settle time.Duration // the same, after N pods were made
	call   time.Duration // limit of one call
	limit  time.Duration // limit of the whole run
}

func defaultPlan() plan {
	return plan{
		pods: 100, rounds: 20, execs: 50, burst: 40, bursts: 3, workers: 8, extra: 10, lists: 50, soak: 2000,
		idle: 2 * time.Second, settle: 5 * time.Second, call: time.Minute, limit: 25 * time.Minute,
	}
}

func parsePlan(args []string) (plan, error) {
	p := defaultPlan()
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	quick := set.Bool("quick", false, "fewer samples and 30 pods: under two minutes")
	full := set.Bool("full", false, "more samples, 300 pods and 10,000 commands: half an hour")
	pods := set.Int("pods", 0, "how many `pods` exist while calls are measured with N pods (default 100; 30 with -quick, 300 with -full)")
	set.StringVar(&p.runtime, "runtime", "crun", "OCI runtime of both servers and of the floor: a name or a path")
	set.StringVar(&p.jsonFile, "json", "", "write all samples to this `file`")
	set.StringVar(&p.gantryd, "gantryd", "", "measure this `program` instead of bin/gantryd")
	only := set.String("only", "", "do only the `steps` whose name matches this regular expression")
	servers := set.String("servers", "containerd,gantry", "what to measure beside the floor")
	if err := set.Parse(args); err != nil {
		return p, err
	}
	if set.NArg() > 0 {
		return p, fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	var err error
	if p.only, err = regexp.Compile(*only); err != nil {
		return p, fmt.Errorf("-only: %w", err)
	}
	if *quick {
		p.soak = 1000
		p.pods, p.rounds, p.execs, p.burst, p.bursts, p.extra, p.lists = 30, 10, 30, 24, 1, 5, 20
		p.settle = 3 * time.Second
	}
	if *full {
		p.pods, p.rounds, p.execs, p.extra, p.soak, p.limit = 300, 40, 100, 20, 10_000, time.Hour
	}
	if *pods > 0 {
		p.pods = *pods
	}
	return p, p.check(*servers)
}

// check completes the plan; a runtime that is not installed is an error.
func (p *plan) check(servers string) error {
	path, err := exec.LookPath(p.runtime)
	if err != nil {
		return fmt.Errorf("runtime %s (test/setup/install.sh installs crun and runc): %w", p.runtime, err)
	}
	p.runtime = path
	for _, name := range strings.Split(servers, ",") {
		if !slices.Contains([]who{containerd, gantry}, who(name)) {
			return fmt.Errorf("-servers: there is no server %q", name)
		}
		p.servers = append(p.servers, who(name))
	}
	if p.pods > 1000 {
		return errors.New("-pods: the bridge has room for 1000 pods")
	}
	return nil
}
