@echo off
rem build         build server.exe and client.exe with gcc (MinGW); set CC=cl, or another one, before
rem build run     and show the handshake, with the server in a window of its own
rem build examples   build each of examples\ in its folder: codes, fleet, gate, relay, chat.c and quickstart.c
rem build test    build them all, and run the tests
rem build clean   remove all that was built
setlocal
cd /d "%~dp0"
if "%CC%"=="" set CC=gcc
set FLAGS=-std=c11 -Wall -Wextra -Wpedantic -O2 -fstack-protector-strong -static
set LIBS=-lws2_32 -lbcrypt -liphlpapi
set "OUT=-o "
set ASK=--version
if /i "%CC%"=="cl" set ASK=
if /i "%CC%"=="cl" set FLAGS=-nologo -std:c11 -experimental:c11atomics -W3 -O2 -MT
if /i "%CC%"=="cl" set LIBS=ws2_32.lib bcrypt.lib iphlpapi.lib psapi.lib
if /i "%CC%"=="cl" set OUT=-Fe:
if "%1"=="clean" goto clean
call %CC% %ASK% >nul 2>nul
if errorlevel 1 goto none
if "%1"=="test" echo build: a minute to build, and five minutes of tests, which mostly wait
if "%1"=="examples" goto examples
if not exist server.c goto client
call %CC% %FLAGS% %OUT%server.exe server.c %LIBS%
if errorlevel 1 exit /b 1
:client
if not exist client.c exit /b 0
call %CC% %FLAGS% %OUT%client.exe client.c %LIBS%
if errorlevel 1 exit /b 1
if "%1"=="run" goto run
if "%1"=="test" goto examples
if "%1"=="" exit /b 0
echo build: no such word: %1 (run, examples, test and clean are)
exit /b 2
:examples
if not exist examples\codes\codes.c echo build: the examples are not in this folder& exit /b 1
for %%f in (quickstart chat codes/codes fleet/fleet gate/gate gate/gate_test relay/relay) do (
    call %CC% %FLAGS% -I. %OUT%examples/%%f.exe examples/%%f.c %LIBS%
    if errorlevel 1 exit /b 1
)
if "%1"=="examples" exit /b 0
call %CC% %FLAGS% %OUT%test.exe test.c %LIBS%
if errorlevel 1 exit /b 1
examples\gate\gate_test.exe
if errorlevel 1 exit /b 1
test.exe
exit /b %errorlevel%
:run
rem The client tries again until the server listens. A server that cannot keeps its window, with its words
start "keyauth server" cmd /c "server.exe || pause"
client.exe --give-up 30 127.0.0.2 9999
exit /b %errorlevel%
:none
echo build: there is no %CC% here. It takes MinGW-w64's gcc, with its bin folder on the PATH:
echo   w64devkit, or WinLibs    a .zip: unpack it where you like
echo   MSYS2                    pacman -S mingw-w64-ucrt-x86_64-gcc
echo   another compiler         set CC=clang
exit /b 1
:clean
del /q server.exe client.exe test.exe 2>nul
del /q /s examples\*.exe >nul 2>nul
exit /b 0
