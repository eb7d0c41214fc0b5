package aio

// portList is a list of ports in order of their turns. A port is on one list at most.
// The zero value is empty.
type portList struct{ first, last *Port }

func (l *portList) push(p *Port) {
	p.list, p.prev, p.next = l, l.last, nil
	if l.last == nil {
		l.first = p
	} else {
		l.last.next = p
	}
	l.last = p
}

// remove takes the port off; it must be on the list.
func (l *portList) remove(p *Port) {
	if p.prev == nil {
		l.first = p.next
	} else {
		p.prev.next = p.next
	}
	if p.next == nil {
		l.last = p.prev
	} else {
		p.next.prev = p.prev
	}
	p.list, p.prev, p.next = nil, nil, nil
}

// slotList is a list of requests, the oldest first. The zero value is empty.
type slotList struct{ oldest, newest *slot }

func (l *slotList) push(s *slot) {
	s.older, s.newer = l.newest, nil
	if l.newest == nil {
		l.oldest = s
	} else {
		l.newest.newer = s
	}
	l.newest = s
}

// remove takes the request off; it must be on the list.
func (l *slotList) remove(s *slot) {
	if s.older == nil {
		l.oldest = s.newer
	} else {
		s.older.newer = s.newer
	}
	if s.newer == nil {
		l.newest = s.older
	} else {
		s.newer.older = s.older
	}
	s.older, s.newer = nil, nil
}
