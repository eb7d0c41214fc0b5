package tests

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

const sourceIP, destinationIP = "10.77.0.1", "10.77.0.2"

// linked makes two hosts with a cable between them, and returns what pulls or plugs the destination's end.
func linked(t *testing.T) (src, dst *host, set func(upOrDown string)) {
	t.Helper()
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	src, dst = newHost(t), newHost(t)
	for _, h := range []struct {
		*host
		name string
	}{{src, "ebb-src"}, {dst, "ebb-dst"}} {
		if out, err := exec.Command("ip", "netns", "add", h.name).CombinedOutput(); err != nil {
			lab.SkipTest(t, "no network namespaces to be had (ip, as root):", err, string(out))
		}
		t.Cleanup(func() { ip("netns", "del", h.name) })
		h.netns = h.name
		ip("-n", h.name, "link", "set", "lo", "up")
	}
	if out, err := exec.Command("ip", "-n", src.netns, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", dst.netns).CombinedOutput(); err != nil {
		lab.SkipTest(t, "no virtual cable to be had (module veth, as root):", err, string(out))
	}
	for _, end := range []struct{ netns, address string }{{src.netns, sourceIP}, {dst.netns, destinationIP}} {
		ip("-n", end.netns, "address", "add", end.address+"/24", "dev", "cable")
		ip("-n", end.netns, "link", "set", "cable", "up")
	}
	return src, dst, func(state string) {
		t.Helper()
		ip("-n", dst.netns, "link", "set", "cable", state)
		ip("-n", src.netns, "neighbour", "flush", "dev", "cable") // what it has just found, that nobody is there, goes for new connections, too
	}
}

// The link between two hosts is cut without a word, and it is not everybody's.
func TestMigrateOverALink(t *testing.T) {
	src, dst, set := linked(t)
	image := makeImage(t, "image", 4<<20)
	g := src.start(append(kernelArgs("6.1", "vmlinux", ""), "--name", movableName, "--memory", "128M", "--disk", "path="+image)...)
	g.expect(prompt)
	g.run("dmesg -c >/dev/null")
	images := []string{"--disk-path", "vda=" + image}
	at := func(options ...string) []string {
		return append(append(options, images...), "--listen", "tcp:"+destinationIP+":0")
	}
	goesOn := func(t *testing.T) {
		t.Helper()
		if i := src.vms(); len(i) != 1 || i[0].State != "running" || i[0].Migrating {
			t.Errorf("the VM is %+v", i)
		}
		wantLocked(t, image)
		mustRead(g, "dd if=/dev/zero of=/dev/vda bs=4k count=16 conv=fsync")
	}
	ours, others := authority(t), authority(t)
	good, there2 := ours.issue(t, sourceIP), ours.issue(t, destinationIP)
	stranger := others.issue(t, sourceIP)
	pretender := others.issue(t, sourceIP) // a stranger who knows our CA
	copyFile(t, filepath.Join(good, "ca.pem"), filepath.Join(pretender, "ca.pem"))

	t.Run("silence", func(t *testing.T) {
		there := dst.receive(at("--insecure")...)
		m := src.migrate(movableName, there.address, "--insecure", "--bandwidth", "1M")
		m.complains(" s · precopy")
		there.complains(movableName + " comes from " + sourceIP)
		set("down")
		src.fails(m, "the link to "+there.address+" is lost (")
		// Who writes may hear from the kernel that the address doesn't answer.
		if said := m.stderr.String(); !strings.Contains(said, "timed out") && !strings.Contains(said, "no route to host") {
			t.Errorf("the source says %q", said)
		}
		dst.fails(there.ebb, movableName+" is not migrated", "timed out")
		set("up")
		goesOn(t)
	})
	g.lives()
	t.Run("security", func(t *testing.T) {
		dst.refuses(append([]string{"receive"}, at()...), "beyond this host", "--tls-dir", "--insecure")
		open := dst.receive(at("--insecure")...)
		src.fails(src.migrate(movableName, open.address), "beyond this host", "--tls-dir", "--insecure")

		there := dst.receive(at("--tls-dir", there2)...)
		src.fails(src.migrate(movableName, there.address, "--tls-dir", stranger), "no TLS connection", "unknown authority", "check --tls-dir on both sides")
		src.fails(src.migrate(movableName, there.address, "--tls-dir", pretender), "unknown certificate authority", "--tls-dir")
		src.fails(src.migrate(movableName, there.address, "--insecure"), there.address, "is it `ebb receive` that listens there, without --tls-dir?")
		src.fails(src.migrate(movableName, open.address, "--tls-dir", good), "no TLS connection", "check --tls-dir on both sides")
		goesOn(t)

		if line := src.moves(movableName, there.address, "--tls-dir", good); !resultLine.MatchString(line) {
			t.Errorf("the result is %q", line)
		}
		g.mustEnd(5)
		mustRead(there.ebb, "dd if=/dev/vda of=/dev/null bs=4k count=16 iflag=direct")
		there.quiet()
		there.types("poweroff -f\n")
		there.mustEnd(0)
	})
}

// ca signs certificates.
type ca struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func authority(t *testing.T) ca {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tests' CA"}, NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, about, about, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return ca{cert, key}
}

// issue makes a --tls-dir for the host with an address.
func (c ca) issue(t *testing.T, address string) (dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: address}, NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.ParseIP(address)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, about, c.cert, &key.PublicKey, c.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	for _, f := range []struct {
		name, kind string
		der        []byte
	}{{"ca.pem", "CERTIFICATE", c.cert.Raw}, {"cert.pem", "CERTIFICATE", cert}, {"key.pem", "PRIVATE KEY", private}} {
		if err := os.WriteFile(filepath.Join(dir, f.name), pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
