package kubelet

import "fmt"

// A pod is what the tests read of a v1.Pod.
type pod struct {
	Metadata struct{ Name, UID string }
	Status   struct {
		Phase                 string
		PodIP                 string
		Conditions            []struct{ Type, Status string }
		InitContainerStatuses []containerStatus
		ContainerStatuses     []containerStatus
	}
}

type containerStatus struct {
	Name, ContainerID string
	Image, ImageID    string
	Ready             bool
	RestartCount      int
	State, LastState  containerState
	User              struct {
		Linux struct {
			UID, GID           int64
			SupplementalGroups []int64
		}
	}
}

type containerState struct {
	Waiting    *struct{ Reason, Message string }
	Running    *struct{ StartedAt string }
	Terminated *struct {
		ExitCode                               int
		Reason, Message, StartedAt, FinishedAt string
	}
}

func (p *pod) condition(kind string) string {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return c.Status
		}
	}
	return "absent"
}

// container returns the status of a container or an init container; an empty
// one before there is any.
func (p *pod) container(name string) containerStatus {
	for _, list := range [][]containerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
		for _, c := range list {
			if c.Name == name {
				return c
			}
		}
	}
	return containerStatus{}
}

// restarted reports whether a container was restarted, and last ended with reason.
func restarted(name, reason string) func(*pod) error {
	return func(p *pod) error {
		c := p.container(name)
		if c.RestartCount == 0 || c.LastState.Terminated == nil {
			return fmt.Errorf("%s was not restarted", name)
		}
		if got := c.LastState.Terminated.Reason; got != reason {
			return fmt.Errorf("%s ended with the reason %s, not %s", name, got, reason)
		}
		return nil
	}
}
