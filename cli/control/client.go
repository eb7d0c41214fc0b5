package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// AnswerLimit is how long what needs no guest and no disk may take.
const AnswerLimit = 10 * time.Second

const maxAnswer = 4 << 20 // bytes

// Client speaks to one VM. Its methods' errors are one sentence. Any goroutine.
type Client struct {
	name string // as the user gave it
	path string // of the socket
	http http.Client
}

// Find returns a client for the VM that is named so, or if name has a slash for
// the one whose --control it is. It doesn't connect yet.
func Find(name string) (*Client, error) {
	path := filepath.Join(RuntimeDir(), name+socketSuffix)
	switch {
	case strings.Contains(name, "/"):
		path = name
	case !ValidName(name):
		return nil, fmt.Errorf("%q is no VM's name; `ebb list` shows those that run", name)
	}
	c := &Client{name: name, path: path}
	c.http.Transport = &http.Transport{
		DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, path) },
		MaxIdleConns:    1,
		IdleConnTimeout: idleLimit / 2,
	}
	return c, nil
}

// Names lists the VMs of RuntimeDir, dead ones included, sorted.
func Names() ([]string, error) {
	dir := RuntimeDir()
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s can't be read (%w); set XDG_RUNTIME_DIR as it was for `ebb run`", dir, reason(err))
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), socketSuffix); ok && ValidName(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Info asks for the VM's description.
func (c *Client) Info(ctx context.Context) (i Info, err error) {
	return i, c.quick(ctx, "GET", "/v1/vm", nil, &i)
}

// Stats asks for the figures.
func (c *Client) Stats(ctx context.Context) (s Stats, err error) {
	return s, c.quick(ctx, "GET", "/v1/stats", nil, &s)
}

// Pause returns when no vCPU runs and no disk request is in flight.
func (c *Client) Pause(ctx context.Context) error { return c.do(ctx, "POST", "/v1/pause", nil, nil) }

// Resume lets a paused guest go on; with force also one that a migration has left standing.
func (c *Client) Resume(ctx context.Context, force bool) error {
	return c.do(ctx, "POST", "/v1/resume", Resumption{force}, nil)
}

// Stop presses the power button.
func (c *Client) Stop(ctx context.Context) error {
	return c.quick(ctx, "POST", "/v1/stop", nil, nil)
}

// Kill pulls the plug.
func (c *Client) Kill(ctx context.Context) error {
	return c.quick(ctx, "POST", "/v1/kill", nil, nil)
}

// AddDisk attaches a disk and returns its id.
func (c *Client) AddDisk(ctx context.Context, d DiskToAdd) (id string, err error) {
	var a Added
	err = c.do(ctx, "POST", "/v1/disks", d, &a)
	return a.ID, err
}

// RemoveDisk returns when the guest has let go of the disk, or with an error when the timeout is
// over: then the disk stays. 0: no timeout.
func (c *Client) RemoveDisk(ctx context.Context, id string, timeout time.Duration) error {
	if timeout > 0 { // the VM's to keep; if it doesn't answer, it is stopped
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout+AnswerLimit)
		defer cancel()
	}
	return c.do(ctx, "DELETE", "/v1/disks/"+url.PathEscape(id), Removal{timeout}, nil)
}

// ResizeDisk makes a disk size bytes long.
func (c *Client) ResizeDisk(ctx context.Context, id string, size uint64) error {
	return c.do(ctx, "PUT", "/v1/disks/"+url.PathEscape(id)+"/size", DiskSize{size}, nil)
}

// WatchEnd has the VM tell how its guest ends, from now on. wait returns that
// when nothing is left of the VM; end is empty if its process did not say. ctx
// ends the waiting too.
func (c *Client) WatchEnd(ctx context.Context) (wait func() (end string, err error), err error) {
	resp, err := c.send(ctx, "GET", "/v1/end", nil)
	if err != nil {
		return nil, c.explain(err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, c.answer(resp, nil)
	}
	return func() (string, error) {
		defer resp.Body.Close()
		var e End
		err := c.answer(resp, &e)
		_, _ = io.Copy(io.Discard, resp.Body) // until the server is gone
		switch {
		case ctx.Err() != nil:
			return "", c.explain(ctx.Err())
		case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			return "", err
		}
		return e.End, nil
	}, nil
}

// quick is do for what is answered at once.
func (c *Client) quick(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, AnswerLimit)
	defer cancel()
	return c.do(ctx, method, path, in, out)
}

// do sends a request and reads the answer into out, unless that is nil.
func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.send(ctx, method, path, in)
	if err != nil {
		return c.explain(err)
	}
	defer resp.Body.Close()
	if out == nil {
		out = &struct{}{}
	}
	return c.answer(resp, out)
}

func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	body := []byte("{}")
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return nil, err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://ebb"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	return c.http.Do(r)
}

func (c *Client) answer(resp *http.Response, out any) error {
	d := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer))
	if resp.StatusCode == http.StatusOK {
		if err := d.Decode(out); err != nil {
			return c.explain(err)
		}
		return nil
	}
	var e struct{ Error string }
	if d.Decode(&e) != nil || e.Error == "" {
		return &Error{resp.StatusCode, fmt.Sprintf("%s answers with HTTP status %s; is it of another version?", c.name, resp.Status)}
	}
	return &Error{resp.StatusCode, e.Error}
}

// explain says in one sentence why a VM was not reached.
func (c *Client) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return unreached{fmt.Sprintf("there is no VM %s (no socket of it in %s); `ebb list` shows those that run", c.name, c.where()), err}
	case errors.Is(err, unix.ECONNREFUSED) && !isSocket(c.path):
		return unreached{fmt.Sprintf("%s is no VM's socket; `ebb list` shows the VMs that run", c.path), err}
	case errors.Is(err, unix.ECONNREFUSED):
		return unreached{fmt.Sprintf("the VM %s runs no more (its process was killed); `ebb list` shows those that do", c.name), err}
	case errors.Is(err, fs.ErrPermission):
		return unreached{fmt.Sprintf("the VM %s is not this user's (%s); run this as its user or as root", c.name, c.where()), err}
	case errors.Is(err, unix.EAGAIN):
		return unreached{fmt.Sprintf("the VM %s takes no more connections at the moment; run this again", c.name), err}
	case errors.Is(err, context.DeadlineExceeded):
		return unreached{fmt.Sprintf("the VM %s does not answer; is its process stopped?", c.name), err}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return unreached{fmt.Sprintf("the VM %s ended before it answered; `ebb list` shows those that run", c.name), err}
	}
	if e := (*url.Error)(nil); errors.As(err, &e) {
		err = e.Err
	}
	return fmt.Errorf("the VM %s is not reached (%w); check %s", c.name, reason(err), c.path)
}

func (c *Client) where() string {
	if strings.Contains(c.name, "/") {
		return c.name
	}
	return RuntimeDir()
}

func isSocket(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().Type() == fs.ModeSocket
}

// unreached is why a VM was not reached: a sentence, and the error it is about.
type unreached struct {
	sentence string
	err      error
}

func (u unreached) Error() string { return u.sentence }
func (u unreached) Unwrap() error { return u.err }
