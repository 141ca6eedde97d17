package images

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
)

// An image is one image under all its names, e.g. "docker.io/library/busybox:latest".
type image struct {
	names  []string
	layers []*Tree
	config imgspec.ImageConfig
}

// Set names a group of images that is built and cached together.
type Set string

const (
	// Demo holds docker.io/library/{nginx:alpine,busybox:latest}: ready in a second.
	Demo Set = "demo"
	// Critest holds every image that critest names, and needs a compiler.
	Critest Set = "critest"
	// Conformance holds those that Kubernetes' own tests of a node name, and needs
	// a compiler and bin/agnhost.
	Conformance Set = "conformance"
)

// searchPath is every image's environment.
const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// inputs is what a set is made from.
type inputs struct {
	busybox string   // the package file that holds the static busybox
	nginx   []string // the package files of nginx and the libraries it needs

	// Only Conformance has these.
	tools   []string // the package files of curl, bash and the libraries they need
	agnhost string   // the program that Kubernetes' tests run in pods
}

func findInputs(ctx context.Context) (inputs, error) {
	lines, err := debs(ctx, "busybox-static", "nginx")
	if err != nil {
		return inputs{}, err
	}
	var in inputs
	for _, line := range lines {
		if strings.Contains(line, " busybox-static_") {
			in.busybox = line
		} else {
			in.nginx = append(in.nginx, line)
		}
	}
	if in.busybox == "" {
		return inputs{}, fmt.Errorf("APT offers no busybox-static")
	}
	return in, nil
}

// demoImages builds the two images of the demo.
func demoImages(ctx context.Context, in inputs) ([]image, error) {
	box := baseTree()
	if err := box.packagedBusybox(ctx, in.busybox); err != nil {
		return nil, err
	}
	web, err := nginxTree(ctx, in.nginx, 80)
	if err != nil {
		return nil, err
	}
	return []image{
		{
			names:  []string{"docker.io/library/busybox:latest", "docker.io/library/busybox:stable"},
			layers: []*Tree{box},
			config: imgspec.ImageConfig{Env: []string{searchPath}, Cmd: []string{"sh"}},
		},
		nginxImage([]*Tree{box, web}, "docker.io/library/nginx:alpine", "docker.io/library/nginx:latest"),
		{
			names:  []string{"docker.io/library/links:latest"},
			layers: []*Tree{box, linksTree()},
			config: imgspec.ImageConfig{Env: []string{searchPath}, Cmd: []string{"sh"}},
		},
		{
			names:  []string{"docker.io/library/etc-link:latest"},
			layers: []*Tree{box, etcLinkTree()},
			config: imgspec.ImageConfig{Env: []string{searchPath}, Cmd: []string{"sh"}},
		},
		{
			names:  []string{"docker.io/library/etc-links:latest"},
			layers: []*Tree{box, etcLinksTree()},
			config: imgspec.ImageConfig{Env: []string{searchPath}, Cmd: []string{"sh"}},
		},
	}, nil
}

// linksTree has links that lead out of the image for whoever follows them on
// the node.
func linksTree() *Tree {
	t := NewTree()
	t.Symlink("absolute", "/tmp")
	t.Symlink("upwards", "../../../../../../../../../../tmp")
	t.Symlink("process", "/proc/1/root/tmp")
	t.File("tmp/inside", 0o644, []byte("of the image\n"))
	return t
}

// EtcTarget is where the links of two images lead: etc-link, of which /etc is
// one, and etc-links, of which the files in /etc are.
const EtcTarget = "/tmp/gantry-etc"

func etcLinkTree() *Tree {
	t := NewTree()
	t.Symlink("etc", EtcTarget)
	return t
}

func etcLinksTree() *Tree {
	t := NewTree()
	for _, name := range []string{"hosts", "hostname", "passwd"} {
		t.Symlink("etc/"+name, EtcTarget+"/"+name)
	}
	for _, name := range []string{"resolv.conf", "group"} {
		t.Symlink("etc/"+name, "../../../../../../.."+EtcTarget+"/"+name)
	}
	return t
}

func nginxImage(layers []*Tree, names ...string) image {
	return image{
		names:  names,
		layers: layers,
		config: imgspec.ImageConfig{
			Env:          []string{searchPath},
			Entrypoint:   []string{"/usr/sbin/nginx"},
			Cmd:          []string{"-g", "daemon off;"},
			ExposedPorts: map[string]struct{}{"80/tcp": {}},
			StopSignal:   "SIGQUIT",
		},
	}
}

// baseTree holds what programs expect of a root file system.
func baseTree() *Tree {
	t := NewTree()
	for _, dir := range []string{"bin", "dev", "etc", "home", "lib", "lib64", "proc", "root", "run", "sbin", "sys", "usr/bin", "usr/sbin", "var/log", "var/cache"} {
		t.Dir(dir, 0o755)
	}
	t.Dir("tmp", 0o1777)
	t.Dir("var/tmp", 0o1777)
	t.Symlink("var/run", "../run")
	t.File("etc/passwd", 0o644, []byte(
		"root:x:0:0:root:/root:/bin/sh\n"+
			"daemon:x:1:1:daemon:/usr/sbin:/bin/false\n"+
			"www-data:x:33:33:www-data:/var/www:/bin/false\n"+
			"default-user:x:1000:1000:Linux User:/home/default-user:/bin/sh\n"+
			"nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"))
	t.File("etc/group", 0o644, []byte(
		"root:x:0:\n"+
			"daemon:x:1:\n"+
			"www-data:x:33:\n"+
			"default-user:x:1000:\n"+
			"group-defined-in-image:x:50000:default-user\n"+
			"nogroup:x:65534:\n"))
	t.Dir("home/default-user", 0o755)
	t.Chown("home/default-user", 1000, 1000)
	return t
}

// nginxTree holds nginx and its libraries, for a root that has a busybox below.
func nginxTree(ctx context.Context, lines []string, port int) (*Tree, error) {
	t, err := programTree(ctx, lines, "usr/sbin/nginx", "usr/share/nginx/html/index.html", "etc/nginx/mime.types")
	if err != nil {
		return nil, err
	}
	t.Dir("var/lib/nginx", 0o755)
	t.Dir("var/log/nginx", 0o755)
	t.File("etc/nginx/nginx.conf", 0o644, []byte(nginxConf(port)))
	return t, nil
}

// programTree holds a program of the packages, other files of theirs, and all
// their libraries, for a root that has a busybox below.
func programTree(ctx context.Context, lines []string, program string, files ...string) (*Tree, error) {
	pkgs := NewTree()
	err := pkgs.unpack(ctx, lines, func(name string) bool {
		return name == program || slices.Contains(files, name) ||
			(strings.HasPrefix(name, "usr/lib") || strings.HasPrefix(name, "lib")) && library(name)
	})
	if err != nil {
		return nil, err
	}
	t := NewTree()
	for name, e := range pkgs.entries {
		// The base keeps /lib and /lib64 as directories of their own, so that
		// busybox's /bin needs no link: the libraries move there.
		if rest, ok := strings.CutPrefix(name, "usr/lib"); ok {
			name = "lib" + rest
		}
		e.header.Name = name
		e.header.Linkname = strings.Replace(e.header.Linkname, "/usr/lib", "/lib", 1)
		t.entries[name] = e
	}
	if _, ok := pkgs.entries[program]; !ok {
		return nil, fmt.Errorf("the packages hold no /%s", program)
	}
	return t, nil
}

func library(name string) bool {
	base := filepath.Base(name)
	return strings.Contains(base, ".so") && !strings.Contains(name, "/gconv/") &&
		!strings.Contains(name, "/engines-") && !strings.Contains(name, "/ossl-modules/") && !strings.Contains(name, "/perl")
}

func nginxConf(port int) string {
	return fmt.Sprintf(`user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log /dev/stderr notice;
events { worker_connections 256; }
http {
	include mime.types;
	access_log /dev/stdout;
	server {
		listen %d;
		listen [::]:%d;
		root /usr/share/nginx/html;
	}
}
`, port, port)
}

// compile builds one of the small C programs beside this file, statically.
func compile(ctx context.Context, source string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "gantry-cc-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	src, bin := filepath.Join(dir, "program.c"), filepath.Join(dir, "program")
	if err := os.WriteFile(src, []byte(source), 0o644); err != nil {
		return nil, err
	}
	if _, err := output(ctx, "", "cc", "-static", "-Os", "-s", "-o", bin, src); err != nil {
		return nil, err
	}
	return os.ReadFile(bin)
}
