package ram

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ebb-vmm/ebb/migration/wire"
)

// patience bounds what would hang if it were wrong.
const patience = 20 * time.Second

// fakeLog is a dirty log that its guest keeps by itself.
type fakeLog struct {
	regions []Region
	bits    [][]uint64
}

func newGuest(sizes ...int) *fakeLog {
	l := &fakeLog{}
	for i, n := range sizes {
		l.regions = append(l.regions, Region{GPA: uint64(i) << 32, Bytes: make([]byte, n*PageSize)})
		l.bits = append(l.bits, make([]uint64, words(uint64(n))))
	}
	return l
}

// write changes a page. The data comes first, as KVM's write protection makes sure of.

func (l *fakeLog) write(region, page int, fill byte) {
	p := l.regions[region].Bytes[page*PageSize:][:PageSize]
	for i := 0; i < PageSize; i += 512 {
		p[i] = fill
	}
	atomic.OrUint64(&l.bits[region][page/64], 1<<(page%64))
}

func (l *fakeLog) Written(region int, bitmap []uint64) error {
	for i := range bitmap {
		bitmap[i] |= atomic.LoadUint64(&l.bits[region][i])
	}
	return nil
}

func (l *fakeLog) Clear(region int, first uint64, bitmap []uint64) error {
	if first%64 != 0 {
		return errors.New("not a whole word")
	}
	for i, w := range bitmap {
		atomic.AndUint64(&l.bits[region][first/64+uint64(i)], ^w)
	}
	return nil
}

// links are both ends of connections for memory.
func links(t testing.TB, n int) (source, dest []*wire.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range n {
		a, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		b, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { a.Close(); b.Close() })
		opened := make(chan *wire.Conn, 1)
		go func() {
			w, _ := wire.Open(b, patience)
			opened <- w
		}()
		w, err := wire.Open(a, patience)
		if err != nil {
			t.Fatal(err)
		}
		source, dest = append(source, w), append(dest, <-opened)
	}
	return source, dest
}

// receive starts a destination, and returns it, its memory, and how its streams end.
func receive(regions []Region, dest []*wire.Conn) (r *Receiver, memory []Region, ended chan error) {
	for _, g := range regions {
		memory = append(memory, Region{g.GPA, make([]byte, len(g.Bytes))})
	}
	r = NewReceiver(memory, len(dest))
	ended = make(chan error, len(dest))
	for i, c := range dest {
		go func() { ended <- r.Stream(c, i) }()
	}
	return r, memory, ended
}

// Whatever a guest writes while passes go on, the destination ends with the same memory.
func TestGuestThatWrites(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		streams := rapid.IntRange(1, 4).Draw(rt, "streams")
		sizes := rapid.SliceOfN(rapid.IntRange(1, 1500), 1, 3).Draw(rt, "sizes")
		seed := rapid.Uint64().Draw(rt, "seed")
		passes := rapid.IntRange(0, 4).Draw(rt, "passes")
		g := newGuest(sizes...)
		source, dest := links(t, streams)
		s := NewSender(g.regions, g, source, nil)
		r, memory, _ := receive(g.regions, dest)

		random := rand.New(rand.NewPCG(seed, 0))
		scribble := func(n int) {
			for range n {
				region := random.IntN(len(sizes))
				g.write(region, random.IntN(sizes[region]), byte(random.IntN(3))) // often zero again
			}
		}
		for range passes {
			stop, stopped := make(chan struct{}), make(chan struct{})
			scribble(20)
			pass := s.Pass
			if random.IntN(3) == 0 { // the last one, but the guest goes on meanwhile
				pass = func(ctx context.Context) (Result, error) { return s.Last(ctx, func(uint32) {}) }
			}
			go func() {
				defer close(stopped)
				for {
					select {
					case <-stop:
						return
					default:
						scribble(10)
					}
				}
			}()
			if _, err := pass(context.Background()); err != nil {
				rt.Fatal(err)
			}
			close(stop)
			<-stopped
		}
		scribble(30)
		select {
		case <-r.Marked(): // of earlier passes
		default:
		}
		onWay := make(chan uint32, 1)
		if _, err := s.Last(context.Background(), func(mark uint32) { onWay <- mark }); err != nil {
			rt.Fatal(err)
		}
		select {
		case <-r.Marked():
		case <-time.After(patience):
			rt.Fatal("nobody would look whether memory is complete")
		}
		if mark := <-onWay; !r.Complete(mark) || r.Complete(mark-1) {
			rt.Fatal(mark)
		}
		for i := range memory {
			if !bytes.Equal(memory[i].Bytes, g.regions[i].Bytes) {
				rt.Fatalf("region %d differs", i)
			}
		}
	})
}

// Pages of zeroes cost next to nothing, and are zeroes again where there was something.
func TestZeroesAreFree(t *testing.T) {
	g := newGuest(2000)
	source, dest := links(t, 2)
	s := NewSender(g.regions, g, source, nil)
	_, memory, _ := receive(g.regions, dest)
	g.write(0, 7, 1)
	if r, err := s.Pass(t.Context()); err != nil || r.Bytes != PageSize || r.Left != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if sent := s.Sent(); sent.Bytes > PageSize+1000 || sent.Pages != 1 || sent.Zeroes != 1999 {
		t.Errorf("%+v", sent)
	}
	g.write(0, 7, 0)
	if r, err := s.Last(t.Context(), func(uint32) {}); err != nil || r.Bytes != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if memory[0].Bytes[7*PageSize] != 0 {
		t.Error("the page is not zero again")
	}
}

// A bandwidth cap is waited for, but not in the last pass.
func TestBandwidth(t *testing.T) {
	g := newGuest(512)
	for p := range 512 {
		g.write(0, p, 1)
	}
	source, dest := links(t, 1)
	s := NewSender(g.regions, g, source, Limit(8<<20))
	receive(g.regions, dest)
	if _, err := s.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	waited := s.Sent().Throttle
	if waited == 0 {
		t.Error("2 MiB at 8 MiB a second were not waited for")
	}
	for p := range 512 {
		g.write(0, p, 2)
	}
	if _, err := s.Last(t.Context(), func(uint32) {}); err != nil {
		t.Fatal(err)
	}
	if s.Sent().Throttle != waited {
		t.Error("the last pass waited")
	}
}

// A pass ends when it is cancelled, though nobody takes what it sends.
func TestPassIsCancelled(t *testing.T) {
	g := newGuest(64 << 10)
	for p := range 64 << 10 {
		g.write(0, p, 1)
	}
	source, _ := links(t, 1)
	s := NewSender(g.regions, g, source, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { _, err := s.Pass(ctx); done <- err }()
	cancel()
	select {
	case err := <-done:
		if err == nil {
			t.Error("256 MiB went to nobody")
		}
	case <-time.After(patience):
		t.Fatal("it hangs")
	}
}

// What has fitted into the kernels' buffers is not taken for what has arrived.
func TestPassEndsAtDestination(t *testing.T) {
	g := newGuest(4)
	g.write(0, 1, 1)
	source, dest := links(t, 1)
	s := NewSender(g.regions, g, source, nil)
	done := make(chan error, 1)
	go func() { _, err := s.Pass(t.Context()); done <- err }()
	for _, want := range []wire.Type{wire.Pages, wire.Mark} {
		h, err := dest[0].Next()
		if err == nil {
			_, err = dest[0].Payload(h)
		}
		if err != nil || h.Type != want {
			t.Fatalf("%v, %v", h.Type, err)
		}
	}
	select {
	case err := <-done:
		t.Fatalf("over before the destination has said so: %v", err)
	default:
	}
	if err := dest[0].Send(wire.Mark, []byte{2, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("the answer to something else was taken")
	}
}

// frame is a Pages frame of any runs.
func frame(content int, runs ...run) []byte {
	le := binary.LittleEndian
	b := make([]byte, tableHead)
	le.PutUint16(b, uint16(len(runs)))
	for _, r := range runs {
		b = le.AppendUint64(b, r.page)
		b = le.AppendUint32(b, r.pages)
		b = le.AppendUint32(b, r.kind)
	}
	return append(b, make([]byte, content)...)
}

// What no source sends is refused, and nothing outside of memory is touched.
func TestGarbage(t *testing.T) {
	many := make([]run, maxRuns+1)
	for name, payload := range map[string][]byte{
		"empty":                     {},
		"half a head":               {1, 0, 0},
		"no table":                  frame(0, run{0, 1, kindZeroes})[:tableHead],
		"too many runs":             frame(0, many...),
		"beyond memory":             frame(PageSize, run{600, 1, kindContent}),
		"across its end":            frame(2*PageSize, run{599, 2, kindContent}),
		"zeroes across its end":     frame(0, run{599, 2, kindZeroes}),
		"between regions":           frame(PageSize, run{1 << 19, 1, kindContent}),
		"the last address":          frame(PageSize, run{^uint64(0), 1, kindContent}),
		"wraps around":              frame(0, run{^uint64(0), ^uint32(0), kindZeroes}),
		"very many":                 frame(0, run{0, ^uint32(0), kindContent}),
		"less content than pages":   frame(PageSize, run{0, 2, kindContent}),
		"more content than pages":   frame(2*PageSize, run{0, 1, kindContent}),
		"unknown kind":              frame(PageSize, run{0, 1, 2}),
		"another stream's page":     frame(PageSize, run{chunkPages, 1, kindContent}),
		"into another stream's":     frame(2*PageSize, run{chunkPages - 1, 2, kindContent}),
		"content without any pages": frame(PageSize),
	} {
		t.Run(name, func(t *testing.T) {
			source, dest := links(t, 2)
			g := newGuest(600)
			_, _, ended := receive(g.regions, dest)
			if err := source[0].Send(wire.Pages, payload); err != nil {
				t.Fatal(err)
			}
			refused(t, ended)
		})
	}
}

// A mark is answered once, in its order.
func TestMarks(t *testing.T) {
	for name, mark := range map[string][]byte{"a later one": {2, 0, 0, 0}, "an earlier one": {0, 0, 0, 0}, "a short one": {1, 0}} {
		t.Run(name, func(t *testing.T) {
			source, dest := links(t, 1)
			_, _, ended := receive(newGuest(10).regions, dest)
			if err := source[0].Send(wire.Mark, mark); err != nil {
				t.Fatal(err)
			}
			refused(t, ended)
		})
	}
}

// refused waits for a stream's end, while its source keeps it open.
func refused(t *testing.T, ended <-chan error) {
	t.Helper()
	select {
	case err := <-ended:
		if errors.Is(err, io.EOF) {
			t.Error("it was taken")
		}
	case <-time.After(patience):
		t.Fatal("it was taken, or the receiver hangs")
	}
}

// A bit that was turned over on the way ends the migration.
func TestDamage(t *testing.T) {
	source, dest := links(t, 1)
	g := newGuest(10)
	_, _, ended := receive(g.regions, dest)
	b := append(make([]byte, wire.HeaderSize), frame(PageSize, run{0, 1, kindContent})...)
	wire.Seal(wire.Pages, b)
	b[len(b)-5] ^= 4
	if _, err := source[0].Write(b); err != nil {
		t.Fatal(err)
	}
	refused(t, ended)
}

// What passes cost, beside a plain copy on the same kind of link:
//
//	go test ./migration/ram -run xxx -bench . -benchtime 2s
func BenchmarkPass(b *testing.B) {
	const pages = 64 << 10
	for _, kind := range []string{"content", "zeroes", "plain"} {
		b.Run(kind, func(b *testing.B) {
			g := newGuest(pages)
			source, dest := links(b, 2)
			if kind != "zeroes" {
				for p := range pages {
					g.write(0, p, 1)
				}
			}
			b.SetBytes(pages * PageSize)
			if kind == "plain" {
				var copying sync.WaitGroup
				for _, c := range dest {
					go func() {
						buf := make([]byte, 256<<10)
						for {
							if _, err := c.Conn.Read(buf); err != nil {
								return
							}
						}
					}()
				}
				b.ResetTimer()
				for range b.N {
					for i, c := range source {
						copying.Go(func() {
							half := g.regions[0].Bytes[i*pages/2*PageSize:][:pages/2*PageSize]
							for len(half) > 0 {
								n := min(len(half), 256<<10)
								if _, err := c.Conn.Write(half[:n]); err != nil {
									b.Error(err)
									return
								}
								half = half[n:]
							}
						})
					}
					copying.Wait()
				}
				return
			}
			s := NewSender(g.regions, g, source, nil)
			receive(g.regions, dest)
			b.ResetTimer()
			for range b.N {
				for i := range s.dirty[0] {
					s.dirty[0][i] = ^uint64(0)
				}
				if _, err := s.Pass(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
