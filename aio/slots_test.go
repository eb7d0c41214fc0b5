package aio

import (
	"testing"

	"pgregory.net/rapid"
)

func TestCapacity(t *testing.T) {
	for _, c := range [][3]int{ // demand, limit, capacity
		{0, maxCapacity, 64}, {63, maxCapacity, 64}, {65, maxCapacity, 65}, {512, maxCapacity, 512},
		{1 << 20, maxCapacity, 32768}, {512, 100, 100}, {10, 20, 20}, {10, 1, 1},
	} {
		if got := capacityFor(c[0], c[1]); got != c[2] {
			t.Errorf("capacityFor(%d, %d) = %d, want %d", c[0], c[1], got, c[2])
		}
	}
}

func TestCapacityFollowsPorts(t *testing.T) {
	f := newFake(t, 4096)
	f.script = holdAll
	e := f.engine(0)
	q := newTestQueue(t)
	q.add(reads(300)...)
	a := attach(t, e, PortConfig{Name: "a", Queues: []Queue{q}, Demand: 300})
	b := attach(t, e, PortConfig{Name: "b", Demand: 500})
	f.rest(e)
	if got := e.Stats(); got != (Stats{Capacity: 800, Demand: 800, InFlight: 300, Enters: got.Enters}) || len(e.slots.chunks) != 13 {
		t.Errorf("%+v, %d chunks", got, len(e.slots.chunks))
	}
	gone := make(chan struct{})
	b.Detach(func() { close(gone) })
	f.rest(e)
	await(t, deadline(t), gone, "detach")
	if got := e.Stats(); got.Capacity != 300 {
		t.Errorf("%+v", got)
	}
	done := false
	a.Detach(func() { done = true })
	f.rest(e)
	if done || e.Stats().Capacity != 300 {
		t.Error("gone with requests in flight")
	}
	f.letGo(300)
	f.rest(e)
	if got := e.Stats(); !done || got != (Stats{Capacity: 64, Enters: got.Enters}) || len(e.slots.chunks) != 1 {
		t.Errorf("%v %+v, %d chunks", done, got, len(e.slots.chunks))
	}
	if len(q.take()) != 300 {
		t.Error("answers are missing")
	}
	done = false
	a.Detach(func() { done = true }) // once more
	f.rest(e)
	if !done {
		t.Error("detaching a detached port doesn't call back")
	}
}

// The slot table against a plain map: ids are unique, found while in use, and not after.
func TestSlotTable(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var table slotTable
		limit := 64
		table.resize(limit)
		used := map[uint64]*slot{}
		var past []uint64
		for range rapid.IntRange(1, 300).Draw(rt, "steps") {
			switch rapid.IntRange(0, 5).Draw(rt, "what") {
			case 0:
				limit = rapid.IntRange(1, 400).Draw(rt, "limit")
				table.resize(limit)
			case 1, 2, 3:
				for range rapid.IntRange(1, 50).Draw(rt, "n") {
					if len(used) < limit {
						s := table.take(nil)
						if used[s.id()] != nil {
							rt.Fatal("id in use")
						}
						used[s.id()] = s
					}
				}
			default:
				n := rapid.IntRange(0, len(used)).Draw(rt, "n")
				for id, s := range used {
					if n--; n < 0 {
						break
					}
					delete(used, id)
					past = append(past, id)
					table.release(s)
				}
			}
			for id, s := range used {
				if table.find(id) != s {
					rt.Fatal("slot moved or lost")
				}
			}
			for _, id := range past {
				if table.find(id) != nil {
					rt.Fatal("released slot found")
				}
			}
			if table.used != len(used) {
				rt.Fatalf("%d used, want %d", table.used, len(used))
			}
			if n := len(table.chunks) * slotChunk; n < limit || len(used) == 0 && n >= limit+slotChunk {
				rt.Fatalf("%d slots for %d", n, limit)
			}
		}
	})
}

func TestFIFO(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var f fifo[int]
		var model []int
		for i := range rapid.IntRange(0, 200).Draw(rt, "steps") {
			if len(model) > 0 && rapid.Bool().Draw(rt, "pop") {
				if got := f.pop(); got != model[0] {
					rt.Fatalf("popped %d, want %d", got, model[0])
				}
				model = model[1:]
			} else {
				f.push(i)
				model = append(model, i)
			}
			if f.len() != len(model) {
				rt.Fatalf("length %d, want %d", f.len(), len(model))
			}
		}
	})
}
