#!/usr/bin/env bash
# Runs a command on an emulated Sapphire Rapids (AVX-512, bf16 dot products, AMX tiles), on any x86-64 Linux:
# right or wrong is the same there as on the real one, speed is not (some 50 times slower).
#
#   scripts/emulator/run.sh BOCHS KERNEL BUSYBOX COMMAND FILE...
#
# BOCHS     a tree of Bochs 3.0, patched and built as said below
# KERNEL    a Linux 6.x kernel (vmlinuz) with a serial console, as distributions have it
# BUSYBOX   a statically linked busybox
# COMMAND   what a shell runs there, in this folder
# FILE...   files and folders it needs, which have the same path there; shared libraries come with them
#
# The kernels against the oracle, one thread:
#
#   cargo test --release --lib --no-run        # names the binary
#   scripts/emulator/run.sh ~/bochs-3.0 /boot/vmlinuz-6.12 /bin/busybox \
#       'RUST_TEST_THREADS=1 target/release/deps/candle_tcn-HASH kernels::' target/release/deps/candle_tcn-HASH
#
# Bochs as released cannot run Linux with AMX: it lacks XFD; when Linux changes tasks, it saves half of
# each tile, and that only of tiles not in use, and swaps two fields of their configuration. The patch mends that,
# and lets the processor below do f32 arithmetic where no number is denormal:
#
#   patch -p1 < bochs-3.0.patch
#   CXXFLAGS='-O2 -march=native' ./configure --enable-x86-64 --enable-cpu-level=6 --enable-fpu --enable-avx \
#       --enable-evex --enable-amx --enable-all-optimizations --disable-plugins --with-nogui && make
#
# Needed besides: cpio, xorriso, isolinux, and the BIOS images of Bochs (packages bochsbios, vgabios), whose
# places BIOS, VGABIOS, ISOLINUX and LDLINUX override.
set -euo pipefail

if [ $# -lt 4 ]; then
  sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//'
  exit 2
fi
bochs=$1 kernel=$2 busybox=$3 command=$4
shift 4
bios=${BIOS:-/usr/share/bochs/BIOS-bochs-latest}
vgabios=${VGABIOS:-/usr/share/bochs/VGABIOS-lgpl-latest}
isolinux=${ISOLINUX:-/usr/lib/ISOLINUX/isolinux.bin}
ldlinux=${LDLINUX:-/usr/lib/syslinux/modules/bios/ldlinux.c32}
for file in "$bochs/bochs" "$kernel" "$busybox" "$bios" "$vgabios" "$isolinux" "$ldlinux"; do
  [ -f "$file" ] || { echo "$file: no such file; what is needed says $0 without arguments" >&2 && exit 2; }
done

work=$(mktemp -d) emulator=
trap '[ -z "$emulator" ] || kill -KILL "$emulator" 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
root=$work/root iso=$work/iso
mkdir -p "$root"/{bin,proc,sys,dev,tmp} "$iso/isolinux"
cp "$busybox" "$root/bin/busybox"
chmod +x "$root/bin/busybox"
copy() {
  mkdir -p "$root$(dirname "$2")"
  cp -rL "$1" "$root$2"
}
for file in "$@"; do
  copy "$file" "$(realpath -s "$file")"
  if [ -f "$file" ] && ldd "$file" >/dev/null 2>&1; then
    for library in $(ldd "$file" | grep -o '/[^ ]*'); do copy "$library" "$library"; done
  fi
done
mkdir -p "$root$PWD"

cat >"$root/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
cd '$PWD'
echo BEGIN
( $command ) 2>&1
echo "END \$?"
sleep 2 # the console is slow
poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) >"$iso/initrd"
cp "$kernel" "$iso/linux"
cp "$isolinux" "$ldlinux" "$iso/isolinux"
# no5lvl: Bochs stops in system management mode with five levels of pages
cat >"$iso/isolinux/isolinux.cfg" <<'CONFIG'
default linux
prompt 0
label linux
 kernel /linux
 append initrd=/initrd console=ttyS0 loglevel=3 no5lvl nokaslr mitigations=off tsc=unstable no_timer_check lpj=5000000
CONFIG
xorriso -as mkisofs -quiet -o "$work/boot.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat \
  -no-emul-boot -boot-load-size 4 -boot-info-table "$iso" 2>/dev/null

# messages are ignored: Bochs 3.0 can wait for itself when it prints two at once
cat >"$work/bochsrc" <<CONFIG
config_interface: textconfig
display_library: nogui
memory: guest=${MEMORY:-2048}, host=${MEMORY:-2048}
romimage: file=$bios
vgaromimage: file=$vgabios
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=$work/boot.iso, status=inserted
boot: cdrom
cpu: model=sapphire_rapids, count=1, ips=80000000, reset_on_triple_fault=0, ignore_bad_msrs=1
clock: sync=none
com1: enabled=1, mode=file, dev=$work/console
log: /dev/null
panic: action=report
error: action=ignore
info: action=ignore
debug: action=ignore
CONFIG
"$bochs/bochs" -q -f "$work/bochsrc" </dev/null >/dev/null 2>&1 &
emulator=$!
touch "$work/console"
tail -n +1 -F --pid=$emulator "$work/console" 2>/dev/null | sed -u -n 's/\r$//; /^BEGIN/,$p' &
wait $emulator || true
wait
status=$(tr -d '\r' <"$work/console" | sed -n 's/^END \([0-9]*\).*/\1/p' | tail -n1)
exit "${status:-1}"
