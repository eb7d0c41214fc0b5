package drain

import (
	"github.com/ebb-vmm/ebb/aio"
)

// Sample is one disk at one tick.
type Sample struct {
	InFlight  int               // requests popped and not completed
	Long      int               // of those, flush, discard and write-zeroes
	Completed uint64            // requests so far
	Window    int               // CauseDrain's bound in force, which follows SetWindow with some delay
	Ended     []aio.GracePeriod // since the last sample, oldest first
	Going     aio.GracePeriod   // the one going on, its length being its age; zero: none
}

// Reader takes samples of one port.
type Reader struct {
	Port  *aio.Port
	count uint64
	ended []aio.GracePeriod
}

// Read takes a sample. Its Ended is good until the next call. What failed and is kept for a
// retry is not in flight: there is nothing to wait for.
func (r *Reader) Read() Sample {
	s := Sample{}
	r.ended, r.count, s.Going = r.Port.Graces(r.count, r.ended[:0])
	stats := r.Port.Stats()
	s.Ended = r.ended
	s.InFlight = stats.InFlight - stats.Kept
	s.Long = stats.LongInFlight
	s.Completed = stats.Read.Requests + stats.Write.Requests + stats.Long.Requests
	s.Window = stats.Windows[aio.CauseDrain]
	return s
}
