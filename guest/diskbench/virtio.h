/* What VIRTIO 1.2 defines, as far as this guest needs it. */
#pragma once
#include "guest.h"

enum { /* offsets in virtio_pci_common_cfg, 4.1.4.3 */
	DEVICE_FEATURE_SELECT = 0, DEVICE_FEATURE = 4, DRIVER_FEATURE_SELECT = 8, DRIVER_FEATURE = 12,
	DEVICE_STATUS = 20, QUEUE_SELECT = 22, QUEUE_SIZE = 24, QUEUE_MSIX_VECTOR = 26, QUEUE_ENABLE = 28,
	QUEUE_NOTIFY_OFF = 30, QUEUE_DESC = 32, QUEUE_DRIVER = 40, QUEUE_DEVICE = 48,
};

enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8, NEEDS_RESET = 64 }; /* 2.1 */

enum {
	BLK_F_RO = 1 << 5, BLK_F_FLUSH = 1 << 9, EVENT_IDX = 1 << 29, /* features 0 to 31 */
	VERSION_1 = 1 << 0,                                           /* features 32 to 63 */
};

enum { DESC_NEXT = 1, DESC_WRITE = 2 };

struct virtq_desc {
	u64 addr;
	u32 len;
	u16 flags, next;
};

struct virtio_blk_outhdr {
	u32 type, reserved;
	u64 sector;
};
