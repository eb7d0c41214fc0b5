// Package control is how a VM is reached while it runs: HTTP with JSON over a
// unix socket that only the VM's user, and root, may open.
//
//	ebb run                                            ebb stats, ebb pause, ...
//	Claim ─▶ Place ── NAME.lock, NAME.sock ◀────────── Find ─▶ Client
//	           │ Serve                                           │
//	         Server ◀───────────── requests ─────────────────────┘
//	           │
//	           ▼
//	          VM: an interface; this package knows no machine
//
// A VM's Place is its name: a lock that the kernel gives back when the process
// dies, and beside it the socket. Whoever has the lock may replace the socket
// that a dead VM left.
//
// The requests are
//
//	GET    /v1/vm               Info
//	GET    /v1/stats            Stats
//	GET    /v1/end              status 200 at once, End when the guest has ended; the
//	                            connection closes when nothing is left of the VM
//	POST   /v1/pause            returns when no vCPU runs and no disk request is in flight
//	POST   /v1/resume           Resumption
//	POST   /v1/stop             presses the power button
//	POST   /v1/kill             pulls the plug
//	POST   /v1/disks            DiskToAdd: Added
//	DELETE /v1/disks/ID         Removal: returns when the guest has let go of it; it stays if the
//	                            client leaves before
//	PUT    /v1/disks/ID/size    DiskSize
//	POST   /v1/migrate          Migration: a line of JSON for each step, the last with the report;
//	                            it is cancelled if the client leaves
//
// What fails is answered with {"error": "one sentence"} and 400 for a request
// that can't be right, 404 for what isn't there, 409 for what can't be at the
// moment, 413 for a body that is too long, 500 for a failure, 503 for too many
// requests or a guest that has ended.
package control
