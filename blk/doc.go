// Package blk is the virtio block device (VIRTIO 1.2, section 5.2) on a raw disk
// image: what a guest's request means, and what it may do.
//
//	virtqueue ──▶ Chain ──▶ header ──▶ aio.Request ──▶ engine ──▶ pending ──▶ status, used ring
//	              bytes     wire.go     decode.go                 queue.go
//
// Each stage is a type, and each looks only at the one before it. A request is
// copied out of guest memory once, checked in full, and only then means anything.
// Data is not copied: the engine moves it between the image and guest memory.
//
// A [Device] is the device-type half for package virtio; an [Image] is the file or
// block device behind it, locked for as long as it is open. The engine's thread
// owns the queues of an active device; nothing on that path locks or allocates.
package blk
