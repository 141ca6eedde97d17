package oci

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
)

const (
	testPasswd = `# a comment
root:x:0:0:root:/root:/bin/sh
broken:x:notanumber:1::/:
short:x
toobig:x:4294967295:0::/:

www-data:x:33:33:www:/var/www:/bin/false
app:x:1000:1000:,,,:/home/app:/bin/sh
app:x:2000:2000::/second:
alias:x:1000:7::/elsewhere:
nohome:x:44:44
relative:x:45:45::home:
777:x:5:6::/named777:
`
	testGroups = `root:x:0:root
bin:x:1:root,app
wheel:x:10:other,app,
www-data:x:33:
tooshort:x
bad:x:bad:app
staff:x:50:app,other
999:x:51:
`
)

func value(v int64) *runtimeapi.Int64Value { return &runtimeapi.Int64Value{Value: v} }

func TestResolveUser(t *testing.T) {
	type sc = runtimeapi.LinuxContainerSecurityContext
	strict := runtimeapi.SupplementalGroupsPolicy_Strict
	root := User{Groups: []uint32{0, 1}, Home: "/root", Name: "root"}
	app := User{UID: 1000, GID: 1000, Groups: []uint32{1000, 1, 10, 50}, Home: "/home/app", Name: "app"}
	with := func(u User, gid uint32, groups ...uint32) User {
		u.GID, u.Groups = gid, groups
		return u
	}
	for _, c := range []struct {
		name, image string
		sc          *sc
		want        User
		wantErr     string
	}{
		{name: "nothing given", want: root},
		{name: "image uid", image: "1000", want: app},
		{name: "image name", image: "app", want: app},
		{name: "image name and group", image: "app:staff", want: with(app, 50, 50, 1, 10)},
		{name: "image uid and gid", image: "1000:5000", want: with(app, 5000, 5000, 1, 10, 50)},
		{name: "image group alone", image: ":staff", want: with(root, 50, 50, 0, 1)},
		{name: "image with an empty group", image: "app:", want: app},
		{name: "image uid unknown", image: "4000", want: User{UID: 4000, Groups: []uint32{0}, Home: "/"}},
		{name: "image uid and gid unknown", image: "4000:4001", want: User{UID: 4000, GID: 4001, Groups: []uint32{4001}, Home: "/"}},
		{name: "image number is a uid, not a name", image: "777", want: User{UID: 777, Groups: []uint32{0}, Home: "/"}},
		{name: "image number is a gid, not a name", image: "1000:999", want: with(app, 999, 999, 1, 10, 50)},
		{name: "image name unknown", image: "nobody", wantErr: `"nobody"`},
		{name: "image group unknown", image: "app:nogroup", wantErr: `"nogroup"`},
		{name: "image uid too big", image: "4294967295", wantErr: `"4294967295"`},
		{name: "image name with broken entry", image: "broken", wantErr: `"broken"`},
		{name: "no home", image: "nohome", want: User{UID: 44, GID: 44, Groups: []uint32{44}, Home: "/", Name: "nohome"}},
		{name: "relative home", image: "relative", want: User{UID: 45, GID: 45, Groups: []uint32{45}, Home: "/", Name: "relative"}},

		{name: "run_as_user", image: "www-data:staff", sc: &sc{RunAsUser: value(1000)}, want: app},
		{name: "run_as_user 0", image: "app", sc: &sc{RunAsUser: value(0)}, want: root},
		{name: "run_as_user unknown", image: "app", sc: &sc{RunAsUser: value(4000)}, want: User{UID: 4000, Groups: []uint32{0}, Home: "/"}},
		{name: "run_as_user and run_as_group", sc: &sc{RunAsUser: value(1000), RunAsGroup: value(0)}, want: with(app, 0, 0, 1, 10, 50)},
		{name: "run_as_username", image: "33", sc: &sc{RunAsUsername: "app"}, want: app},
		{name: "run_as_username and run_as_group", sc: &sc{RunAsUsername: "app", RunAsGroup: value(9)}, want: with(app, 9, 9, 1, 10, 50)},
		{name: "run_as_username that is a number", sc: &sc{RunAsUsername: "777"}, want: User{UID: 5, GID: 6, Groups: []uint32{6}, Home: "/named777", Name: "777"}},
		{name: "run_as_username unknown", sc: &sc{RunAsUsername: "1000"}, wantErr: `"1000"`},
		{name: "run_as_username with a group", sc: &sc{RunAsUsername: "app:staff"}, wantErr: `"app:staff"`},
		{name: "both", sc: &sc{RunAsUser: value(0), RunAsUsername: "root"}, wantErr: "both"},
		{name: "run_as_group alone", image: "app", sc: &sc{RunAsGroup: value(5)}, wantErr: "run_as_group"},
		{name: "run_as_user negative", sc: &sc{RunAsUser: value(-1)}, wantErr: "run_as_user"},
		{name: "run_as_user too big", sc: &sc{RunAsUser: value(1<<32 - 1)}, wantErr: "run_as_user"},
		{name: "run_as_group too big", sc: &sc{RunAsUser: value(1), RunAsGroup: value(1 << 32)}, wantErr: "run_as_group"},

		{name: "supplemental, merged", image: "app", sc: &sc{SupplementalGroups: []int64{10, 1234, 1000}}, want: with(app, 1000, 1000, 1, 10, 50, 1234)},
		{name: "supplemental, strict", image: "app", sc: &sc{SupplementalGroups: []int64{1234, 1234}, SupplementalGroupsPolicy: strict}, want: with(app, 1000, 1000, 1234)},
		{name: "strict without supplemental", image: "app", sc: &sc{SupplementalGroupsPolicy: strict}, want: with(app, 1000, 1000)},
		{name: "supplemental negative", sc: &sc{SupplementalGroups: []int64{-5}}, wantErr: "supplemental_groups"},
		{name: "unknown policy", sc: &sc{SupplementalGroupsPolicy: 9}, wantErr: "supplemental_groups_policy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ResolveUser(c.sc, c.image, []byte(testPasswd), []byte(testGroups))
			if c.wantErr != "" {
				if errkind.Of(err) != errkind.Invalid || !strings.Contains(err.Error(), c.wantErr) {
					t.Errorf("error %v (kind %v), want one that names %s", err, errkind.Of(err), c.wantErr)
				}
				return
			}
			if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
				t.Errorf("%v\n%s", err, diff)
			}
		})
	}
	got, err := ResolveUser(nil, "", nil, nil)
	if diff := cmp.Diff(User{Groups: []uint32{0}, Home: "/"}, got); err != nil || diff != "" {
		t.Errorf("without /etc/passwd: %v\n%s", err, diff)
	}
}

func FuzzResolveUser(f *testing.F) {
	f.Add("app:staff", "app", int64(1000), testPasswd, testGroups)
	f.Add("4294967295:", "", int64(-1), "a:b:0:0", "::::::")
	f.Add("::", "\n", int64(1), ":\n:::\n", "a:x:0:,,,a")
	f.Fuzz(func(t *testing.T, image, name string, uid int64, passwd, group string) {
		for _, sc := range []*runtimeapi.LinuxContainerSecurityContext{
			nil, {RunAsUsername: name}, {RunAsUser: value(uid), SupplementalGroups: []int64{uid}},
		} {
			u, err := ResolveUser(sc, image, []byte(passwd), []byte(group))
			if err != nil {
				if errkind.Of(err) != errkind.Invalid {
					t.Errorf("error without a kind: %v", err)
				}
				continue
			}
			if len(u.Groups) == 0 || u.Groups[0] != u.GID || u.Home == "" || u.Home[0] != '/' {
				t.Errorf("incomplete: %+v", u)
			}
			sorted := slices.Sorted(slices.Values(u.Groups))
			if len(slices.Compact(sorted)) != len(u.Groups) {
				t.Errorf("groups repeat: %+v", u)
			}
			if sc.GetRunAsUser() != nil && int64(u.UID) != uid || sc.GetRunAsUsername() != u.Name && sc.GetRunAsUsername() != "" {
				t.Errorf("asked for %v, got %+v", sc, u)
			}
		}
	})
}
