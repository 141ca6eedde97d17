package images

import (
	"context"
	"runtime"

	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The names that critest v1.36 has built in.
const (
	e2e     = "registry.k8s.io/e2e-test-images/"
	staging = "gcr.io/k8s-staging-cri-tools/"
)

// effectiveUID is what the nonewprivs image runs, setuid root.
const effectiveUID = `#include <stdio.h>
#include <unistd.h>
int main(void) { printf("Effective uid: %d\n", (int)geteuid()); return 0; }
`

// critestImages builds every image that critest names; program is a busybox
// with every applet.
func critestImages(ctx context.Context, in inputs, program []byte) ([]image, error) {
	box, web, err := shellAndWeb(ctx, in, program)
	if err != nil {
		return nil, err
	}
	hostWeb := NewTree()
	hostWeb.File("etc/nginx/nginx.conf", 0o644, []byte(nginxConf(12003)))
	nnp, err := programmed(ctx, "nnp", 0o4755, effectiveUID)
	if err != nil {
		return nil, err
	}
	httpd := NewTree()
	httpd.File("var/www/index.html", 0o644, []byte("It works!\n"))

	list := []image{
		shell(box, nil, e2e+"busybox:1.29-2"),
		nginxImage([]*Tree{box, web}, e2e+"nginx:1.14-2"),
		nginxImage([]*Tree{box, web, hostWeb}, staging+"hostnet-nginx-"+runtime.GOARCH+":latest"),
		{
			names:  []string{e2e + "httpd:2.4.39-4"},
			layers: []*Tree{box, httpd},
			config: imgspec.ImageConfig{Env: []string{searchPath}, Cmd: []string{"sh", "-c", "echo httpd starts; exec httpd -f -vv -p 80 -h /var/www"}},
		},
		{
			names:  []string{e2e + "nonewprivs:1.3"},
			layers: []*Tree{box, nnp},
			config: imgspec.ImageConfig{Env: []string{searchPath}, Entrypoint: []string{"/nnp"}},
		},
	}
	list = append(list, referenceImages(box)...)
	return append(list, userImages(box)...), nil
}

// shellAndWeb are a root file system whose busybox is program, and nginx for it.
func shellAndWeb(ctx context.Context, in inputs, program []byte) (box, web *Tree, err error) {
	box = baseTree()
	if err := box.addBusybox(ctx, program); err != nil {
		return nil, nil, err
	}
	web, err = nginxTree(ctx, in.nginx, 80)
	return box, web, err
}

// programmed holds one program, compiled from source.
func programmed(ctx context.Context, name string, mode int64, source string) (*Tree, error) {
	program, err := compile(ctx, source)
	if err != nil {
		return nil, err
	}
	t := NewTree()
	t.File(name, mode, program)
	return t, nil
}

// referenceImages are for the specs about names: what is in them matters only
// in that it differs where the names stand for different images.
func referenceImages(box *Tree) []image {
	marked := func(mark string, names ...string) image {
		t := NewTree()
		t.File("mark", 0o644, []byte(mark+"\n"))
		return shell(box, t, names...)
	}
	list := []image{
		marked("latest", staging+"test-image-latest:latest"),
		marked("digest", staging+"test-image-digest:latest"),
		marked("test", staging+"test-image-tag:test"),
		marked("all", staging+"test-image-tag:all"),
		marked("1", staging+"test-image-1:latest"),
		marked("2", staging+"test-image-2:latest"),
		marked("3", staging+"test-image-3:latest"),
		marked("tags", staging+"test-image-tags:1", staging+"test-image-tags:2", staging+"test-image-tags:3"),
	}
	for _, version := range []string{"3.6", "3.8", "3.9", "3.10", "3.10.1"} {
		im := marked("pause "+version, "registry.k8s.io/pause:"+version, "k8s.gcr.io/pause:"+version)
		im.config.Cmd = nil
		im.config.Entrypoint = []string{"tail", "-f", "/dev/null"}
		list = append(list, im)
	}
	return list
}

func userImages(box *Tree) []image {
	users := []struct{ name, user string }{
		{"user-uid", "1002"},
		{"user-username", "www-data"},
		{"user-uid-group", "1003:users"},
		{"user-username-group", "www-data:www-data"},
		{"predefined-group", "1000"},
	}
	var list []image
	for _, u := range users {
		im := shell(box, nil, staging+"test-image-"+u.name+":latest")
		im.config.User = u.user
		list = append(list, im)
	}
	return list
}

func shell(box, more *Tree, names ...string) image {
	im := image{
		names:  names,
		layers: []*Tree{box},
		config: imgspec.ImageConfig{Env: []string{searchPath}, Cmd: []string{"sh"}},
	}
	if more != nil {
		im.layers = append(im.layers, more)
	}
	return im
}
