package server

import (
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/events"
	"github.com/gantry-cri/gantry/internal/sandbox"
)

// GetContainerEvents sends what happens to containers and pods until the client
// goes away or the daemon stops. The response's header is sent as soon as
// nothing more can be missed. A client that reads too slowly is dropped with
// ResourceExhausted and should list everything, as at its beginning.
func (s *Server) GetContainerEvents(_ *runtimeapi.GetEventsRequest, stream grpc.ServerStreamingServer[runtimeapi.ContainerEventResponse]) error {
	sub := s.opts.Pods.Subscribe()
	defer sub.Close()
	if err := stream.SendHeader(metadata.MD{}); err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() { sent <- sendEvents(stream, sub) }()
	select {
	case err := <-sent:
		return endOfEvents(err)
	case <-sub.Ended(): // a Send that waits for the client ends with this call
		return endOfEvents(sub.Err())
	}
}

func sendEvents(stream grpc.ServerStreamingServer[runtimeapi.ContainerEventResponse], sub *events.Subscription[sandbox.Event]) error {
	for {
		e, err := sub.Next(stream.Context())
		if err != nil {
			return err
		}
		if err := stream.Send(event(e)); err != nil {
			return err
		}
	}
}

func endOfEvents(err error) error {
	switch {
	case errors.Is(err, events.ErrTooSlow):
		return errkind.Errorf(errkind.Exhausted, "container events: %w", err)
	case errors.Is(err, events.ErrClosed):
		return errkind.Errorf(errkind.Unavailable, "container events: %w", err)
	}
	return err
}

var eventTypes = map[events.Kind]runtimeapi.ContainerEventType{
	events.Created: runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT,
	events.Started: runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT,
	events.Stopped: runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT,
	events.Deleted: runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT,
}

func event(e sandbox.Event) *runtimeapi.ContainerEventResponse {
	out := &runtimeapi.ContainerEventResponse{
		ContainerId:        e.Subject,
		ContainerEventType: eventTypes[e.Kind],
		CreatedAt:          e.At.UnixNano(),
		PodSandboxStatus:   podStatusAt(e.Pod, e.Status),
	}
	for _, c := range e.Containers {
		out.ContainersStatuses = append(out.ContainersStatuses, containerStatusAt(c.Container, c.Status))
	}
	return out
}
