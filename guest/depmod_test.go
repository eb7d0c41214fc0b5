package guest

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// modulesDir makes a lib/modules/<release> with these files in it.
func modulesDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestModuleOrder(t *testing.T) {
	k := Kernel{Release: "9.9", Modules: modulesDir(t, map[string]string{
		"modules.builtin": "kernel/fs/fuse/fuse.ko\n",
		"modules.dep": "kernel/virtio-pci.ko: kernel/virtio-legacy.ko kernel/virtio.ko kernel/ring.ko\n" +
			"kernel/virtio-legacy.ko: kernel/virtio.ko kernel/ring.ko\n" +
			"kernel/virtio.ko: kernel/ring.ko\nkernel/ring.ko:\n" +
			"kernel/blk.ko: kernel/virtio.ko kernel/ring.ko\n",
	})}
	got, err := k.ModuleOrder("virtio_pci", "fuse", "blk", "ring")
	want := []string{"kernel/ring.ko", "kernel/virtio.ko", "kernel/virtio-legacy.ko", "kernel/virtio-pci.ko", "kernel/blk.ko"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	if _, err := k.ModuleOrder("absent"); err == nil || err.Error() != "kernel 9.9 has no module absent" {
		t.Errorf("absent: %v", err)
	}
}

func TestLoadOrder(t *testing.T) {
	needs := map[string][]string{"a": {"b", "c"}, "b": {"d"}, "c": {"d", "b"}}
	if got, want := loadOrder("a", needs, nil), []string{"d", "b", "c", "a"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestWriteModulesDepRefusesWhatIsNoModule(t *testing.T) {
	if err := WriteModulesDep(modulesDir(t, map[string]string{"x.ko": "text"})); err == nil {
		t.Error("accepted")
	}
}
