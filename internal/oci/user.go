package oci

import (
	"math"
	"slices"
	"strconv"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// ResolveUser decides whom a container's process runs as, from the request's
// security context (may be nil), the USER of the image ("user", "uid",
// "user:group", "uid:gid" or "") and the contents of the image's /etc/passwd
// and /etc/group (nil if it has none).
//
// The request wins over the image as a whole: with run_as_user or
// run_as_username, the group in the image's USER does not count either. The
// primary group is run_as_group, or else that of the image's USER, or else
// that of /etc/passwd, or else 0. A user or group given by name must exist;
// one given by number need not. The error's kind is Invalid.
func ResolveUser(sc *runtimeapi.LinuxContainerSecurityContext, imageUser string, passwd, group []byte) (User, error) {
	if err := checkRunAs(sc); err != nil {
		return User{}, err
	}
	entry, groupName, err := chooseUser(sc, imageUser, passwd)
	if err != nil {
		return User{}, err
	}
	gid := entry.gid
	switch {
	case sc.GetRunAsGroup() != nil:
		if gid, err = toID("run_as_group", sc.GetRunAsGroup().GetValue()); err != nil {
			return User{}, err
		}
	case groupName != "":
		if gid, err = lookupGroup(groupName, group); err != nil {
			return User{}, err
		}
	}
	u := User{UID: entry.uid, GID: gid, Groups: []uint32{gid}, Home: entry.home, Name: entry.name}
	if !strings.HasPrefix(u.Home, "/") {
		u.Home = "/"
	}
	if sc.GetSupplementalGroupsPolicy() == runtimeapi.SupplementalGroupsPolicy_Merge && entry.name != "" {
		u.Groups = append(u.Groups, groupsOf(entry.name, group)...)
	}
	for _, g := range sc.GetSupplementalGroups() {
		extra, err := toID("supplemental_groups", g)
		if err != nil {
			return User{}, err
		}
		u.Groups = append(u.Groups, extra)
	}
	u.Groups = unique(u.Groups)
	return u, nil
}

// SandboxUser decides whom the pause container runs as: root, unless the request
// says otherwise. The error's kind is Invalid.
func SandboxUser(cfg *runtimeapi.PodSandboxConfig) (User, error) {
	sc := cfg.GetLinux().GetSecurityContext()
	return ResolveUser(&runtimeapi.LinuxContainerSecurityContext{
		RunAsUser:                sc.GetRunAsUser(),
		RunAsGroup:               sc.GetRunAsGroup(),
		SupplementalGroups:       sc.GetSupplementalGroups(),
		SupplementalGroupsPolicy: sc.GetSupplementalGroupsPolicy(),
	}, "", nil, nil)
}

// checkRunAs refuses what contradicts itself.
func checkRunAs(sc *runtimeapi.LinuxContainerSecurityContext) error {
	byName, byID := sc.GetRunAsUsername() != "", sc.GetRunAsUser() != nil
	switch policy := sc.GetSupplementalGroupsPolicy(); {
	case byName && byID:
		return errkind.Errorf(errkind.Invalid, "run_as_user and run_as_username are both set")
	case sc.GetRunAsGroup() != nil && !byName && !byID:
		return errkind.Errorf(errkind.Invalid, "run_as_group is set without run_as_user or run_as_username")
	case policy != runtimeapi.SupplementalGroupsPolicy_Merge && policy != runtimeapi.SupplementalGroupsPolicy_Strict:
		return errkind.Errorf(errkind.Invalid, "unknown supplemental_groups_policy %d", policy)
	}
	return nil
}

// chooseUser returns the user's entry (without a name if /etc/passwd has none)
// and the group that the image names with it, "" if that does not count.
func chooseUser(sc *runtimeapi.LinuxContainerSecurityContext, imageUser string, passwd []byte) (passwdEntry, string, error) {
	if name := sc.GetRunAsUsername(); name != "" {
		entry, ok := findUser(passwd, func(e passwdEntry) bool { return e.name == name })
		if !ok {
			return entry, "", errkind.Errorf(errkind.Invalid, "run_as_username: the image has no user %q", name)
		}
		return entry, "", nil
	}
	if sc.GetRunAsUser() != nil {
		uid, err := toID("run_as_user", sc.GetRunAsUser().GetValue())
		return userByID(uid, passwd), "", err
	}
	name, groupName, _ := strings.Cut(imageUser, ":")
	if name == "" {
		name = "0"
	}
	if uid, ok := parseID(name); ok {
		return userByID(uid, passwd), groupName, nil
	}
	entry, ok := findUser(passwd, func(e passwdEntry) bool { return e.name == name })
	if !ok {
		return entry, "", errkind.Errorf(errkind.Invalid, "the image's user %q is not in its /etc/passwd", name)
	}
	return entry, groupName, nil
}

func userByID(uid uint32, passwd []byte) passwdEntry {
	entry, ok := findUser(passwd, func(e passwdEntry) bool { return e.uid == uid })
	if !ok {
		entry.uid = uid
	}
	return entry
}

func lookupGroup(name string, group []byte) (uint32, error) {
	if gid, ok := parseID(name); ok {
		return gid, nil
	}
	for line := range strings.Lines(string(group)) {
		if e, ok := parseGroup(line); ok && e.name == name {
			return e.gid, nil
		}
	}
	return 0, errkind.Errorf(errkind.Invalid, "the image's group %q is not in its /etc/group", name)
}

// groupsOf lists the groups of /etc/group that have the user as a member.
func groupsOf(user string, group []byte) []uint32 {
	var gids []uint32
	for line := range strings.Lines(string(group)) {
		if e, ok := parseGroup(line); ok && slices.Contains(e.members, user) {
			gids = append(gids, e.gid)
		}
	}
	return gids
}

type passwdEntry struct {
	name     string
	uid, gid uint32
	home     string
}

// findUser returns the first entry that matches.
func findUser(passwd []byte, match func(passwdEntry) bool) (passwdEntry, bool) {
	for line := range strings.Lines(string(passwd)) {
		if e, ok := parsePasswd(line); ok && match(e) {
			return e, true
		}
	}
	return passwdEntry{}, false
}

// parsePasswd reads a line of passwd(5). A line that is not of that form, as
// a comment, is no entry.
func parsePasswd(line string) (passwdEntry, bool) {
	f := strings.Split(strings.TrimSpace(line), ":")
	if len(f) < 4 || f[0] == "" {
		return passwdEntry{}, false
	}
	uid, ok1 := parseID(f[2])
	gid, ok2 := parseID(f[3])
	e := passwdEntry{name: f[0], uid: uid, gid: gid}
	if len(f) > 5 {
		e.home = f[5]
	}
	return e, ok1 && ok2
}

type groupEntry struct {
	name    string
	gid     uint32
	members []string
}

// parseGroup reads a line of group(5).
func parseGroup(line string) (groupEntry, bool) {
	f := strings.Split(strings.TrimSpace(line), ":")
	if len(f) < 3 || f[0] == "" {
		return groupEntry{}, false
	}
	gid, ok := parseID(f[2])
	e := groupEntry{name: f[0], gid: gid}
	if len(f) > 3 && f[3] != "" {
		e.members = strings.Split(f[3], ",")
	}
	return e, ok
}

// maxID is the largest user and group id: the one above means "none" to the kernel.
const maxID = math.MaxUint32 - 1

func parseID(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n <= maxID
}

func toID(field string, v int64) (uint32, error) {
	if v < 0 || v > maxID {
		return 0, errkind.Errorf(errkind.Invalid, "%s: %d is not between 0 and %d", field, v, int64(maxID))
	}
	return uint32(v), nil
}

// unique drops what was there before, and keeps the order.
func unique[T comparable](list []T) []T {
	seen := make(map[T]bool, len(list))
	return slices.DeleteFunc(list, func(v T) bool {
		dup := seen[v]
		seen[v] = true
		return dup
	})
}
