package machine

import "encoding/json"

// rehearse turns a state into JSON and back, while nobody waits for it. The first time takes several times as
// long as the others: what encoding/json has to know of a type it finds out then, and code is read from the disk.
// While the vCPUs stand that would be most of the downtime that is not the disks' or memory's.
func rehearse(s machineState) {
	if data, err := json.Marshal(s); err == nil {
		_ = json.Unmarshal(data, new(machineState))
	}
}
