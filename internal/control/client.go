package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
)

// Client asks a daemon.
type Client struct {
	http   http.Client
	socket string
}

// NewClient returns a client of the daemon that listens on socket. It connects
// when it asks.
func NewClient(socket string) *Client {
	c := &Client{socket: socket}
	c.http.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}
	return c
}

// Status tells how the daemon is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var out Status
	return out, c.one(ctx, http.MethodGet, "/v1/status", nil, &out)
}

// Images lists what is stored, the newest first.
func (c *Client) Images(ctx context.Context) ([]Image, error) {
	var out []Image
	return out, c.one(ctx, http.MethodGet, "/v1/images", nil, &out)
}

// Inspect tells of one image. It is an error if it is not stored.
func (c *Client) Inspect(ctx context.Context, name string) (Inspection, error) {
	var out Inspection
	return out, c.one(ctx, http.MethodGet, "/v1/images/inspect", url.Values{"image": {name}}, &out)
}

// Pull pulls an image and calls update with how far it is, and then with the
// image. The error says why it could not be pulled.
func (c *Client) Pull(ctx context.Context, name string, update func(PullUpdate)) error {
	ended := false
	err := stream(ctx, c, "/v1/images/pull", url.Values{"image": {name}}, func(u PullUpdate) error {
		if u.Error != "" {
			return errors.New(u.Error)
		}
		ended = ended || u.Image != nil
		update(u)
		return nil
	})
	if err == nil && !ended {
		err = errors.New("the daemon ended before the pull did: pull again")
	}
	return err
}

// Verify checks the files of one image, or of all for "".
func (c *Client) Verify(ctx context.Context, name string, each func(Verdict)) error {
	return stream(ctx, c, "/v1/images/verify", url.Values{"image": {name}}, func(v Verdict) error {
		each(v)
		return nil
	})
}

// Prune removes the images that nothing uses and that are not pinned.
func (c *Client) Prune(ctx context.Context) (Pruned, error) {
	var out Pruned
	return out, c.one(ctx, http.MethodPost, "/v1/images/prune", nil, &out)
}

func (c *Client) one(ctx context.Context, method, path string, query url.Values, out any) error {
	body, err := c.ask(ctx, method, path, query)
	if err != nil {
		return err
	}
	defer body.Close()
	return json.NewDecoder(body).Decode(out)
}

func stream[T any](ctx context.Context, c *Client, path string, query url.Values, each func(T) error) error {
	body, err := c.ask(ctx, http.MethodPost, path, query)
	if err != nil {
		return err
	}
	defer body.Close()
	for in := json.NewDecoder(body); ; {
		var v T
		if err := in.Decode(&v); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := each(v); err != nil {
			return err
		}
	}
}

func (c *Client) ask(ctx context.Context, method, path string, query url.Values) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://gantry"+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("no daemon answers at %s: %w", c.socket, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	var p problem
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&p); err != nil || p.Error == "" {
		return nil, fmt.Errorf("%s: %s", path, resp.Status)
	}
	return nil, errors.New(p.Error)
}
