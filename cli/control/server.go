package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// pauseLimit bounds how long a guest stands still because a disk doesn't answer.
const pauseLimit = 30 * time.Second

// Server answers requests to one VM. A request that fails, whatever it is made
// of, fails alone.
type Server struct {
	name    string
	vm      VM
	started time.Time
	http    http.Server
	serving sync.WaitGroup

	cancel context.CancelFunc // ends every request
	using  sync.RWMutex       // held for reading while a method of vm runs
	once   sync.Once
	over   chan struct{} // closed by Finish, after end is set
	end    string
	closed chan struct{} // closed by close

	mu       sync.Mutex
	closing  bool           // no watcher comes any more
	watchers sync.WaitGroup // that have not been told the end; Add under mu
}

// Serve starts answering what comes to the place. Call it once. Finish ends the
// use of vm; the place's Release ends the server.
func (p *Place) Serve(vm VM, log *slog.Logger) *Server {
	p.server = newServer(p.name, vm, log)
	p.server.serve(p.listener)
	return p.server
}

func (s *Server) serve(l net.Listener) {
	s.serving.Go(func() { _ = s.http.Serve(limit(l)) })
}

func newServer(name string, vm VM, log *slog.Logger) *Server {
	s := &Server{name: name, vm: vm, started: time.Now(), over: make(chan struct{}), closed: make(chan struct{})}
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(context.Background())
	s.configure(ctx, log)
	mux := http.NewServeMux()
	for pattern, h := range map[string]func(*http.Request) (any, error){
		"GET /v1/vm":              s.info,
		"GET /v1/stats":           s.stats,
		"POST /v1/pause":          s.pause,
		"POST /v1/resume":         s.resume,
		"POST /v1/stop":           s.stop,
		"POST /v1/kill":           s.kill,
		"POST /v1/disks":          s.addDisk,
		"DELETE /v1/disks/{id}":   s.removeDisk,
		"PUT /v1/disks/{id}/size": s.resizeDisk,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, h) })
	}
	mux.HandleFunc("GET /v1/end", s.awaitEnd)
	mux.HandleFunc("POST /v1/migrate", s.migrate)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, Refuse(http.StatusNotFound, "there is no request %.20q %.60q; docs/cli.md lists them", r.Method, r.URL.Path))
	})
	s.http.Handler = s.guard(mux)
	return s
}

// Finish says how the guest ended and returns when no method of the VM runs, nor
// will. What is said first counts.
func (s *Server) Finish(end string) {
	s.once.Do(func() {
		s.end = end
		close(s.over)
		s.cancel()
	})
	s.using.Lock()
	defer s.using.Unlock()
}

func (s *Server) close() {
	s.Finish("failed")
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.watchers.Wait() // writeLimit at most
	close(s.closed)
	s.http.Close()
	s.serving.Wait()
}

func (s *Server) isOver() bool {
	select {
	case <-s.over:
		return true
	default:
		return false
	}
}

// answer answers with what h returns.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, h func(*http.Request) (any, error)) {
	result, err := s.use(r, h)
	if err != nil {
		fail(w, err)
		return
	}
	respond(w, http.StatusOK, result)
}

// use calls h, which may call the VM's methods.
func (s *Server) use(r *http.Request, h func(*http.Request) (any, error)) (any, error) {
	s.using.RLock()
	defer s.using.RUnlock()
	if s.isOver() {
		return nil, s.ended()
	}
	result, err := h(r)
	if s.isOver() && errors.Is(err, context.Canceled) {
		err = s.ended()
	}
	return result, err
}

func (s *Server) ended() error {
	return Refuse(http.StatusServiceUnavailable, "the guest of %s has ended; run it again to use it", s.name)
}

func (s *Server) uptime() float64 { return time.Since(s.started).Seconds() }

func (s *Server) info(r *http.Request) (any, error) {
	if err := decode(r, &struct{}{}); err != nil {
		return nil, err
	}
	i := s.vm.Info()
	i.Name, i.PID, i.Uptime = s.name, os.Getpid(), s.uptime()
	return i, nil
}

func (s *Server) stats(r *http.Request) (any, error) {
	if err := decode(r, &struct{}{}); err != nil {
		return nil, err
	}
	st := s.vm.Stats()
	st.Uptime = s.uptime()
	return st, nil
}

func (s *Server) pause(r *http.Request) (any, error) {
	if err := decode(r, &struct{}{}); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), pauseLimit)
	defer cancel()
	err := s.vm.Pause(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = Refuse(http.StatusConflict, "%s can't be paused, as a disk did not answer within %v: it runs on; `ebb stats %s` shows which",
			s.name, pauseLimit, s.name)
	}
	return struct{}{}, err
}

func (s *Server) resume(r *http.Request) (any, error) {
	var how Resumption
	if err := decode(r, &how); err != nil {
		return nil, err
	}
	return struct{}{}, s.vm.Resume(how.Force)
}

func (s *Server) stop(r *http.Request) (any, error) {
	if err := decode(r, &struct{}{}); err != nil {
		return nil, err
	}
	switch i := s.vm.Info(); {
	case i.State == StatePaused && i.Migrating:
		return nil, Refuse(http.StatusConflict, "%s is on its way here, so that its guest can't power off yet; wait until it runs, or `ebb kill %s`", s.name, s.name)
	case i.State == StatePaused:
		return nil, Refuse(http.StatusConflict, "%s is paused, so that its guest can't power off; run `ebb resume %s` before", s.name, s.name)
	}
	return struct{}{}, s.vm.PowerButton()
}

func (s *Server) kill(r *http.Request) (any, error) {
	if err := decode(r, &struct{}{}); err != nil {
		return nil, err
	}
	s.vm.Kill()
	return struct{}{}, nil
}

func (s *Server) addDisk(r *http.Request) (any, error) {
	var d DiskToAdd
	if err := decode(r, &d); err != nil {
		return nil, err
	}
	id, err := s.vm.AddDisk(r.Context(), d.Disk, d.Dir)
	return Added{id}, err
}

func (s *Server) removeDisk(r *http.Request) (any, error) {
	var how Removal
	if err := decode(r, &how); err != nil {
		return nil, err
	}
	if how.Timeout < 0 {
		return nil, Refuse(http.StatusBadRequest, "a timeout of %v is not possible", how.Timeout)
	}
	ctx := r.Context()
	if how.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, how.Timeout, fmt.Errorf("after %v", how.Timeout))
		defer cancel()
	}
	return struct{}{}, s.vm.RemoveDisk(ctx, r.PathValue("id"))
}

func (s *Server) resizeDisk(r *http.Request) (any, error) {
	var d DiskSize
	if err := decode(r, &d); err != nil {
		return nil, err
	}
	return struct{}{}, s.vm.ResizeDisk(r.Context(), r.PathValue("id"), d.Size)
}

// awaitEnd begins its answer at once, so that the client knows that it will not
// miss the guest's end. The answer's own end is the server's: then the name and
// the disk images are free too.
func (s *Server) awaitEnd(w http.ResponseWriter, r *http.Request) {
	if err := decode(r, &struct{}{}); err != nil {
		fail(w, err)
		return
	}
	if !s.addWatcher() {
		return
	}
	told := s.tellEnd(w, r)
	s.watchers.Done()
	if told {
		<-s.closed
	}
}

func (s *Server) addWatcher() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		s.watchers.Add(1)
	}
	return !s.closing
}

// tellEnd reports whether there was an end before the client left.
func (s *Server) tellEnd(w http.ResponseWriter, r *http.Request) bool {
	begin(w, http.StatusOK)
	if http.NewResponseController(w).Flush() != nil {
		return false
	}
	select {
	case <-s.over: // which ends the request's context as well
	case <-r.Context().Done():
		if !s.isOver() {
			return false
		}
	}
	send(w, End{s.end})
	return http.NewResponseController(w).Flush() == nil
}
