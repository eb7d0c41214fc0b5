package machine

import (
	"fmt"
	"maps"
	"slices"

	"github.com/ebb-vmm/ebb/aio"
)

// joinGroup sets the group a disk shares limits with. The first disk that gives a group
// limits makes it.
func (m *Machine) joinGroup(d *disk) error {
	name, own := d.cfg.Group, d.cfg.Limits
	if name == "" {
		return nil
	}
	g := m.groups[name]
	if g == nil {
		limits := groupLimits(m.cfg.Disks, name)
		if limits == (aio.Limits{}) {
			limits = own
		}
		if limits == (aio.Limits{}) {
			return fmt.Errorf("group=%s: no disk gives this group limits; add iops= or bps=", name)
		}
		var err error
		if g, err = m.engine.NewGroup(name, limits); err != nil {
			return err
		}
		if m.groups == nil {
			m.groups = map[string]*aio.Group{}
		}
		m.groups[name] = g
	}
	if own != (aio.Limits{}) && own != g.Limits() {
		return fmt.Errorf("group=%s has other limits already; give them with one disk only", name)
	}
	d.group = g
	return nil
}

// leaveGroup is for a disk that is not the machine's: a group without disks is forgotten. m.plugging is held.
func (m *Machine) leaveGroup(d *disk) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.ContainsFunc(m.disks, func(e *disk) bool { return e.cfg.Group == d.cfg.Group }) {
		delete(m.groups, d.cfg.Group)
	}
}

// groupLimits are the limits that a group's first disk with any gives.
func groupLimits(disks []Disk, group string) aio.Limits {
	for _, d := range disks {
		if d.Group == group && d.Limits != (aio.Limits{}) {
			return d.Limits
		}
	}
	return aio.Limits{}
}

// limits are those the disk keeps, its group's if it has one.
func (d *disk) limits() aio.Limits {
	if d.group != nil {
		return d.group.Limits()
	}
	return d.cfg.Limits
}

// ownLimits are those that are not its group's.
func (d *disk) ownLimits() aio.Limits {
	if d.group != nil {
		return aio.Limits{}
	}
	return d.cfg.Limits
}

// saveGroups returns what the groups' limits have left.
func (m *Machine) saveGroups() (list []groupState) {
	m.plugging.Lock() // nobody has it for long while the guest migrates
	defer m.plugging.Unlock()
	for _, name := range slices.Sorted(maps.Keys(m.groups)) {
		list = append(list, groupState{name, m.groups[name].Tokens()})
	}
	return list
}

// loadGroups gives the groups what they had left elsewhere.
func (m *Machine) loadGroups(list []groupState) error {
	for _, s := range list {
		g := m.groups[s.Name]
		if g == nil {
			return fmt.Errorf("the state has a group %q, this machine has none", s.Name)
		}
		if err := g.SetTokens(s.Tokens); err != nil {
			return fmt.Errorf("group %s: %w", s.Name, err)
		}
	}
	return nil
}
